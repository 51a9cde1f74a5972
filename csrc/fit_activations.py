"""The coefficients of kernels/math.inc: needs NumPy and mpmath to run.

Minimax fits by a Remez exchange, rounded, and checked on a sweep with correctly rounded fused
multiply-adds (and flushed denormals, for float32) emulated. Deterministic, about ten seconds.
"""

from fractions import Fraction
from functools import reduce
from itertools import groupby

import mpmath as mp
import numpy as np

mp.mp.dps = 40
F = np.float32
LN2 = mp.log(2)
MAGIC = F(12582912 + 127)


def chebyshev_points(lo, hi, m):
    return [lo + (hi - lo) * (1 - mp.cos(mp.pi * (k + mp.mpf(0.5)) / m)) / 2 for k in range(m)]


def remez(basis, target, weight, grid):
    """Coefficients minimising max |(sum c_k basis_k - target) weight| over grid."""
    n = len(basis)
    B = [[b(x) for b in basis] for x in grid]
    T, W = [target(x) for x in grid], [weight(x) for x in grid]
    ref = [round(i * (len(grid) - 1) / n) for i in range(n + 1)]
    for _ in range(12):
        A = mp.matrix([B[k] + [(-1) ** i / W[k]] for i, k in enumerate(ref)])
        c = list(mp.lu_solve(A, mp.matrix([T[k] for k in ref])))[:n]
        err = [(mp.fdot(c, row) - t) * w for row, t, w in zip(B, T, W, strict=True)]
        runs = groupby(range(len(err)), lambda k, err=err: err[k] > 0)  # of equal sign
        peaks = [max(run, key=lambda k: abs(err[k])) for _, run in runs]
        while len(peaks) > n + 1:
            peaks.pop(0 if abs(err[peaks[0]]) < abs(err[peaks[-1]]) else -1)
        assert len(peaks) == n + 1, "lost alternation"
        ref = peaks
    return c, max(map(abs, err))


def powers(ks):
    return [lambda x, k=k: x**k for k in ks]


def fit_exp(degree, points, relative_to):
    """exp(r) = 1 + r + r^2 (c2 + c3 r + ...) on |r| <= ln2/2; returns c2.."""
    h = LN2 / 2 * (1 + mp.mpf(2) ** -16)
    return remez(
        powers(range(2, degree + 1)),
        lambda x: mp.expm1(x) - x,
        lambda x: 1 / abs(relative_to(x)),
        chebyshev_points(-h, h, points),
    )


def fit_tanh(X, na, nb):
    """x A(x^2) / B(x^2) ~ tanh(x/2), A(0) = 1/2, B(0) = 1, such that
    2ab/(a^2+b^2) is minimax for tanh(x) on [0, X] (Loeb iteration on the
    denominator; 1/cosh(x) is how the doubling damps an error of a/b)."""
    grid = [mp.sqrt(u) for u in chebyshev_points(mp.mpf(0), mp.mpf(X) ** 2, 300)]
    t2 = {x: 2 * mp.tanh(x / 2) for x in grid}
    basis = powers(range(3, 2 * na + 2, 2)) + [
        lambda x, k=k: -t2[x] * x ** (2 * k) for k in range(1, nb + 1)
    ]
    b = [mp.mpf(1)]
    for _ in range(8):
        c, e = remez(
            basis,
            lambda x: t2[x] - x,
            lambda x, b=b: 1 / (t2[x] * mp.polyval(b[::-1], x * x) * mp.cosh(x)),
            grid,
        )
        b = [mp.mpf(1), *c[na:]]
    return [mp.mpf(0.5)] + [v / 2 for v in c[:na]], b, e


def nudge(values, ulps):
    """Round to float32 and step each result by a number of float32 ulps."""
    return (np.array(values, F).view(np.int32) + np.array(ulps, np.int32)).view(F)


def flush(v):
    return np.where(np.abs(v) < np.finfo(F).tiny, np.copysign(F(0), v), v)


def fma(a, b, c):
    """float32 fma: exact product in double, sum rounded to odd, then to float."""
    p, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    s = p + c
    z = s - p
    e = (p - (s - z)) + (c - z)
    inexact = (e != 0) & (s.view(np.int64) & 1 == 0) & np.isfinite(s)
    return flush(np.where(inexact, np.nextafter(s, np.copysign(np.inf, e)), s).astype(F))


def horner(c, x, fma=fma):
    return reduce(lambda r, v: fma(r, x, v), c[::-1])


def tanh32(x, A, B, X):
    x = np.minimum(np.maximum(flush(x), -X), X)
    u = flush(x * x)
    a, b = flush(horner(A, u) * x), horner(B, u)
    return flush(flush((a + a) * b) / fma(b, b, flush(a * a)))


def sigmoid32(x, c):
    hi = F(float.fromhex("0x1.63p-1"))  # short, so that n * hi is exact without an fma too
    lo = F(float(LN2 - float(hi)))
    t = np.minimum(np.maximum(-flush(x), F(-87)), F(88.3))
    m = fma(t, F(float(1 / LN2)), MAGIC)
    n = m - MAGIC
    r = fma(n, -lo, fma(n, -hi, t))
    e = flush(horner(c, r) * (m.view(np.int32) << 23).view(F))
    return flush(F(1) / (F(1) + e))


def max_ulp32(got, ref):
    ok = np.abs(ref) >= np.finfo(F).tiny
    ulp = np.ldexp(1.0, np.frexp(ref[ok])[1] - 24)
    return np.max(np.abs(got[ok].astype(float) - ref[ok]) / ulp)


def fma64(a, b, c):  # exact rationals: slow, so few points
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def reduce64(t):
    n, hi = round(Fraction(t) * Fraction(float(1 / LN2))), float.fromhex("0x1.62e42feep-1")
    return n, fma64(-n, float(LN2 - hi), fma64(-n, hi, t))


def sigmoid64(x, c):
    n, r = reduce64(min(max(-x, -708.0), 709.4))
    return 1.0 / (1.0 + horner(c, r, fma64) * 2.0**n)


def tanh64(x, q):
    n, r = reduce64(2 * min(abs(x), 20.0))
    p = fma64(r * r, horner(q, r, fma64), r)
    em1 = fma64(2.0**n, p, 2.0**n - 1)
    return float(np.copysign(em1 / (em1 + 2), x))


def max_ulp64(f, ref, xs):
    ys = [ref(mp.mpf(x)) for x in xs]
    return float(
        max(abs(f(x) - y) / mp.ldexp(1, mp.frexp(y)[1] - 53) for x, y in zip(xs, ys, strict=True))
    )


def show(name, err, cs, ulp):
    print(f"{name}: minimax error {mp.nstr(err, 4)}, max ulp on the sweep {ulp:.4f}")
    for v in cs:
        print(f"  {float(v).hex():28s} {float(v):.17g}")


if __name__ == "__main__":
    np.seterr(all="ignore")
    x = np.arange(0, 2**32, 2003, dtype=np.uint64).astype(np.uint32).view(F)
    x = x[~np.isnan(x)]
    A, B, err = fit_tanh(8.6, 2, 3)
    # The scale and the last-bit steps come from an exhaustive search over roundings.
    scale = 2 * float.fromhex("0x1.dcd166p+0")
    k = nudge([scale * float(v) for v in A + B], [0, 3, 2, 0, 0, -2, 3])
    y = tanh32(x, k[:3], k[3:], F(9))
    show("tanh32 A then B", err, k, max_ulp32(y, np.tanh(x.astype(float))))
    assert np.max(np.abs(y)) == 1
    c, err = fit_exp(6, 200, mp.exp)
    c = np.array([1, 1] + [float(v) for v in c], F)
    show("sigmoid32", err, c, max_ulp32(sigmoid32(x, c), 1 / (1 + np.exp(-x.astype(float)))))
    near, wide = (np.random.default_rng(1).uniform(-1, 1, (2, 1500)) * [[1], [20]]).tolist()
    c, err = fit_exp(11, 300, mp.exp)
    c = [1.0, 1.0] + [float(v) for v in c]
    show(
        "sigmoid64",
        err,
        c,
        max_ulp64(
            lambda v: sigmoid64(v, c), lambda v: 1 / (1 + mp.exp(-v)), near + [35 * v for v in wide]
        ),
    )
    q, err = fit_exp(11, 300, mp.expm1)
    q = [*map(float, q)]
    show("tanh64 q", err, q, max_ulp64(lambda v: tanh64(v, q), mp.tanh, near + wide))
