"""Stand-in until branch ccompile is merged."""
NAMES = {"exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "pow"}


def functions(names):
    out = []
    for name in sorted(names):
        _, f, s = name.split("_", 1)[0], *name[3:].rsplit("_", 1)
        t, x = ("float", "f") if s == "f32" else ("double", "")
        if f == "sigmoid":
            out.append(f"static inline {t} {name}({t} x) {{ return 1 / (1 + exp{x}(-x)); }}")
        elif f == "softplus":
            out.append(f"static inline {t} {name}({t} x) {{ return (x > 0 ? x : 0) + log1p{x}(exp{x}(x > 0 ? -x : x)); }}")
        elif f == "pow":
            out.append(f"static inline {t} {name}({t} a, {t} b) {{ return pow{x}(a, b); }}")
        else:
            out.append(f"static inline {t} {name}({t} x) {{ return {f}{x}(x); }}")
    return "\n".join(out)
