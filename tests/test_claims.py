"""The figures on the pages are those of their commands: see claims.py."""

import pytest
from claims import CLAIMS, ROOT, TABLE, table

NAMES = [f"{claim.page}: {claim.what}" for claim in CLAIMS]


@pytest.mark.parametrize("claim", CLAIMS, ids=NAMES)
def test_the_page_has_the_figures_of_the_command(claim):
    assert claim.missing() == []
    if claim.check is not None and not claim.slow:
        assert claim.check()


@pytest.mark.slow
@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.slow], ids=lambda claim: claim.what)
def test_measured_again(claim):
    assert claim.check()


def test_the_table_of_claims_is_fresh():
    assert table() == TABLE.read_text(encoding="utf-8"), "run python tests/claims.py --write"
    for claim in CLAIMS:
        words = claim.command.split()
        assert words[0] in ("minigrad", "pytest") or (ROOT / words[words.index("python") + 1]).exists(), claim.command
    assert len(set(NAMES)) == len(NAMES)
