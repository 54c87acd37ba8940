"""Stand-in until branch ccompile is merged."""
import ctypes
import hashlib
import os
import subprocess


def enabled():
    return os.environ.get("MINIGRAD_CC") != "none"


def load(source):
    key = hashlib.sha256(source.encode()).hexdigest()[:20]
    base = f"/tmp/w/cprinter-cache/{key}"
    os.makedirs("/tmp/w/cprinter-cache", exist_ok=True)
    if not os.path.exists(base + ".so"):
        with open(base + ".c", "w") as f:
            f.write(source)
        flags = os.environ.get("MINIGRAD_CFLAGS", "-O3 -march=native -fno-math-errno -fno-trapping-math -Wall -Wno-unused").split()
        subprocess.run(["gcc", *flags, "-shared", "-fPIC", "-o", f"{base}.{os.getpid()}.so", base + ".c", "-lm", "-pthread"], check=True)
        os.rename(f"{base}.{os.getpid()}.so", base + ".so")
    return ctypes.CDLL(base + ".so")


def reason():
    return "no compiler"


_threads = None


def threads():
    global _threads
    if _threads is None:
        from threadpoolctl import ThreadpoolController
        found = [c for c in ThreadpoolController().lib_controllers if c.user_api == "blas"]
        _threads = found[0].get_num_threads if found else lambda: 1
    return _threads()
