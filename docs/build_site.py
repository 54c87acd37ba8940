"""Build the site of these pages, with a reference made from the docstrings, into build/site:

    pip install -e ".[site]" && python docs/build_site.py

The site opens from disk: build/site/index.html. Its pages are those of docs/ and the README, as they are. Where they
link to a file of the repository, the site has a page with its text. Zensical makes the HTML. At the end every link is
followed; the exit status is 1 if one leads nowhere.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PAGES, SITE, CONFIG = ROOT / "build" / "pages", ROOT / "build" / "site", ROOT / "build" / "zensical.toml"
# The order of the pages in the navigation; a page that is not listed comes at the end of the first part.
PARTS = {
    "Use": ["derive", "audit", "train", "data", "tasks", "inspect", "connections", "performance"],
    "Learn": ["bptt", "document"],
    "Inside": ["architecture", "engine", "contributing", "changelog"],
}
# page → (title, what it lists: a module, or objects of one by name)
REFERENCE = {
    "tensors": ("Tensors and ops", "minigrad", "Tensor tensor no_grad detect_anomaly op composite *ops"),
    "functions": ("Functions of functions", "minigrad", "grad value_and_grad vjp jvp hvp jacobian hessian"),
    "checking": ("Is this gradient right?", "minigrad", "gradcheck GradcheckError audit"),
    "programs": ("Derived programs and time", "minigrad", "derive scan loops_in TraceError"),
    "nn": ("Layers and losses", "minigrad.nn", ""),
    "init": ("Initial values", "minigrad.nn.init", ""),
    "optim": ("Optimisers", "minigrad.optim", "Optimizer SGD RMSprop Adagrad Adam AdamW clip_grad_norm constant "
              "step_decay cosine warm_up"),
    "tasks": ("Tasks", "minigrad.tasks", ""),
    "training": ("Training", "minigrad.training", ""),
    "data": ("Your own data", "minigrad.data", ""),
    "sampling": ("Samples", "minigrad", "sample"),
    "bptt": ("The microscope", "minigrad.bptt", ""),
    "pictures": ("Pictures and reports", "minigrad", "inspect graph"),
    "plot": ("Plots", "minigrad.plot", "by_lag against_lag heat gates ledger spectra truncation paths saturation "
             "curves"),
    "connections": ("Connections", "minigrad.connections", ""),
}
LANGUAGES = {".py": "python", ".html": "html", ".toml": "toml", ".yml": "yaml", ".sh": "bash", "": "bash"}
FENCED = re.compile(r"(^```.*?^```[ ]*$)", re.M | re.S)
LINK = re.compile(r"(\]\(|src=\")([^)\s\"]+)")
OUTSIDE = re.compile(r"[a-z]+:|#|//")


def main() -> int:
    shutil.rmtree(PAGES, ignore_errors=True)
    pages = {ROOT / "README.md": "index.md"}
    pages |= {page: page.relative_to(ROOT / "docs").as_posix() for page in sorted((ROOT / "docs").rglob("*.md"))}
    wanted: list[Path] = []
    for page, name in pages.items():
        write(name, linked(page.read_text(encoding="utf-8"), page, name, pages, wanted))
    for path in (ROOT / "docs").rglob("*"):
        if is_shown_as_it_is(path):
            (PAGES / path.relative_to(ROOT / "docs")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, PAGES / path.relative_to(ROOT / "docs"))
    for path in (done := dict.fromkeys(wanted)):
        write(*source_page(path, done))
    write_reference()
    CONFIG.write_text(config(list(pages.values())), encoding="utf-8")
    shutil.rmtree(SITE, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "-f", str(CONFIG)], check=True)
    broken = list(broken_links(SITE))
    print("\n".join(broken) or f"{SITE / 'index.html'}: every link leads to a page")
    return bool(broken)


def write(name: str, text: str) -> None:
    """Write a page of the site, by its name below build/pages."""
    path = PAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def is_shown_as_it_is(path: Path) -> bool:
    """Whether this is a picture, or another file of docs/ that a browser shows."""
    return path.is_relative_to(ROOT / "docs") and path.is_file() and path.suffix in (".svg", ".png", ".html", ".gif")


# -- links ------------------------------------------------------------------------------------------------------------


def linked(text: str, page: Path, name: str, pages: dict[Path, str], wanted: list[Path]) -> str:
    """The text of a page with its links rewritten for its place on the site; files outside docs/ become `wanted`."""
    def there(match: re.Match) -> str:
        opening, link = match.groups()
        if OUTSIDE.match(link):
            return match[0]
        target, hash_, anchor = link.partition("#")
        path = (page.parent / target).resolve()
        if path in pages:
            place = pages[path]
        elif is_shown_as_it_is(path):
            place = path.relative_to(ROOT / "docs").as_posix()
        else:
            wanted.append(path)
            place = source_name(path)
        return f"{opening}{os.path.relpath(place, Path(name).parent)}{hash_}{anchor}"
    return "".join(re.sub(r"^```(\w+) .*", r"```\1", part) if part.startswith("```") else LINK.sub(there, part)
                   for part in FENCED.split(text))  # without `no-run`, which is for the tests


def source_name(path: Path) -> str:
    place = path.relative_to(ROOT).as_posix().lstrip(".")  # a site has no hidden folders
    return f"source/{place}{'/index' if path.is_dir() else ''}.md"


def source_page(path: Path, wanted: dict[Path, None]) -> tuple[str, str]:
    """(name, text) of the page with the text of a file, or with the list of a folder."""
    title = path.relative_to(ROOT).as_posix()
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {title}{'/' * path.is_dir()}\n\n"
    if path.is_dir():
        held = [child for child in sorted(path.iterdir()) if child.suffix == ".py"]
        rows = [f"* [{child.name}]({child.name}.md)" for child in held]
        for child in held:
            write(*source_page(child, wanted))
        return source_name(path), head + "\n".join(rows) + "\n"
    language = LANGUAGES.get(path.suffix, "text")
    return source_name(path), f"{head}``````{language}\n{path.read_text(encoding='utf-8').rstrip()}\n``````\n"


# -- the reference ----------------------------------------------------------------------------------------------------


def write_reference() -> None:
    sys.path.insert(0, str(ROOT))
    import importlib

    import minigrad
    lines = ["# Reference\n", "Made from the docstrings.\n"]
    for name, (title, module, names) in REFERENCE.items():
        shown = {"minigrad.bptt": minigrad.bptt, "minigrad.plot": minigrad.plot}.get(module)
        shown = shown or importlib.import_module(module)
        listed = [one for part in names.split() for one in (minigrad.op_names if part == "*ops" else [part])]
        parts = [f"# {title}\n"] + ([] if module == "minigrad" else [docstring(shown)])
        found = listed or public_names(shown)
        parts += [entry(f"{module}.{one}", getattr(shown, one), 2) for one in found]
        write(f"reference/{name}.md", "\n".join(parts))
        lines.append(f"* [{title}]({name}.md): {', '.join(f'`{one}`' for one in found[:8])}{', …' * (len(found) > 8)}")
    write("reference/index.md", "\n".join(lines) + "\n")


def public_names(module: ModuleType) -> list[str]:
    """The names that a module offers: `__all__`, or its own functions and classes."""
    return list(getattr(module, "__all__", ())) or [
        name for name, value in vars(module).items() if not name.startswith("_") and callable(value)
        and getattr(value, "__doc__", None) and getattr(value, "__module__", "").startswith(module.__name__)]


def entry(name: str, value: Any, level: int) -> str:
    """A heading, the signature and the docstring; of a class its methods too."""
    short = name.replace("minigrad.", "mg.", 1)
    parts = [f"{'#' * level} {short}\n"]
    if callable(value):
        parts.append(f"```python\n{short}{signature(value)}\n```\n")
    if not isinstance(value, (dict, list, tuple)):
        parts.append(docstring(value))
    if inspect.isclass(value):
        parts += [entry(f"{name}.{method}", one, level + 1) for method, one in vars(value).items()
                  if not method.startswith("_") and inspect.isfunction(one) and one.__doc__]
    return "\n".join(parts)


def signature(value: Any) -> str:
    """The arguments with their defaults, one a line if they are long; types are in the docstring."""
    try:
        given = inspect.signature(value)
    except (TypeError, ValueError):
        return "(…)"
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in given.parameters.values()]
    text = str(given.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    text = re.sub(r"<([\w.]+) object at 0x\w+>|<(?:function|class) '?([\w.]+)[^>]*>", r"\1\2", text)
    return text if len(text) <= 80 else text.replace("(", "(\n    ", 1).replace(", ", ",\n    ")


def docstring(value: Any) -> str:
    """The docstring as it is: its columns carry meaning. Blocks of Python in it are highlighted."""
    text = inspect.getdoc(value) or ""
    parts = [part if part.startswith("```") else f"``````text\n{part.strip(chr(10))}\n``````"
             for part in FENCED.split(text) if part.strip()]
    return "\n\n".join(parts) + "\n"


# -- Zensical ---------------------------------------------------------------------------------------------------------


def config(names: list[str]) -> str:
    """The text of zensical.toml."""
    listed = [f"{name}.md" for part in PARTS.values() for name in part]
    parts = {part: [f"{name}.md" for name in group if f"{name}.md" in names] for part, group in PARTS.items()}
    parts["Use"] += [name for name in names if name not in listed and name != "index.md"]
    parts["Reference"] = ["reference/index.md", *(f"reference/{name}.md" for name in REFERENCE)]
    nav = ['{ Home = "index.md" }']
    nav += [f"{{ {json.dumps(part)} = {json.dumps(group)} }}" for part, group in parts.items()]
    return f"""[project]
site_name = "minigrad"
site_description = "An autodiff mini framework on NumPy to understand and train recurrent networks"
docs_dir = "pages"
site_dir = "site"
use_directory_urls = false
nav = [{", ".join(nav)}]
[project.theme]
font = false
features = ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"]
[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle.icon = "lucide/sun"
toggle.name = "Dark"
[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle.icon = "lucide/moon"
toggle.name = "Light"
[project.markdown_extensions]
tables = {{}}
toc.permalink = true
toc.slugify = {{ object = "pymdownx.slugs.slugify", kwds = {{ case = "lower" }} }}
pymdownx.highlight = {{}}
pymdownx.superfences = {{}}
[project.plugins.search]
[project.plugins.offline]
"""


# -- checking ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {x for x in (given.get("id"), given.get("name")) if x}
        link = given.get("href") if tag in ("a", "link") else given.get("src") if tag in ("img", "script") else None
        if link:
            self.links.append(link)


def broken_links(site: Path) -> Iterator[str]:
    """A sentence for every link of the site that leads to no file or to no anchor."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                yield f"{path.relative_to(site.resolve())} links to {link}, which does not exist"
            elif anchor and target in pages and anchor not in pages[target].anchors and not re.search("^__|=", anchor):
                yield f"{path.relative_to(site.resolve())} links to {link}, and that page has no such heading"


if __name__ == "__main__":
    sys.exit(main())
