"""Agreement levels: the only place where the suite keeps a tolerance.

Normative in ``spec/numerics.md`` under the names in the comments; each line says where the
number comes from.
"""

from __future__ import annotations

EPS32 = 2.0**-23

# num.level.ulp -- one product, or an exact product and one sum, rounded once: half a unit.
ULP = 1.0

# num.level.norm -- after a rotation, ||got - ideal|| <= NORM * EPS32 * ||ideal||.
# A block of 2^m has m stages; every stage adds at most one rounding (EPS32/2) per element of a
# matrix that is orthogonal up to sqrt(2), the final constant two more (its own rounding and the
# product). m <= 10 gives (10 + 2) / 2 = 6; 8 leaves room for a dense product of the same length.
NORM = 8.0

# num.level.tie -- two candidates whose squared distances differ by less than TIE * (1 + d) are
# equally near. z = y * r carries the rotation's error and two roundings on |z| <= 128, and the
# distance is quadratic with |e| <= 1 in 8 coordinates: 8 * 2 * 128 * NORM * EPS32 < 2^-6.
TIE = 2.0**-6

# num.level.quality -- a bounded encoder's mean squared error <= (1 + QUALITY) * reference's.
# Its choices differ only where two candidates are equally near within TIE; the gain byte, one
# step of the grid away at a midpoint, moves a vector's error by at most a few per cent and only
# for that vector.
QUALITY = 0.01


# num.level.floor -- where the ideal is zero or subnormal each operation errs by at most 2^-150;
# D of them bound the norm.
SMALLEST = 2.0**-149

# num.level.per-bit -- mean squared error of a unit Gaussian against the Lloyd-Max optimum.
# The gain grid has steps of 2^(1/8): the gain is off by at most 2^(1/16) (4.4 per cent), uniform
# in the logarithm. At 8 bits that mismatch costs at most 20 per cent (a cell is 4.4 per cent wide
# of the optimum and the tails clip); the sampling error of 2^16 values stays under 5 per cent.
LLOYD_MAX = (0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 0.000644, 0.000164, 0.0000414)
PER_BIT_LOW, PER_BIT_HIGH = 0.90, 1.30

# num.level.per-bit -- the same of a trellis code, in units of the bound 4^-b, for walks of 128,
# measured on 2^20 values: what the gain grid costs is inside. 2^16 values show it to 2 per cent.
TRELLIS = (1.146, 1.201, 1.248, 1.278, 1.307, 1.338, 1.378, 1.412)
TRELLIS_LOW, TRELLIS_HIGH = 0.94, 1.06

# num.level.per-bit -- uniform integers: error falls by ((2^(b+1) - 1) / (2^b - 1))^2 per bit,
# from 9 (1 to 2 bits) to 4.02 (7 to 8). Half precision of lo and step blurs the last bits.
INT_BAND = 0.25

# num.level.per-q -- lattice: error is proportional to kappa_q^2 while nothing clips. Doubling q
# shrinks kappa by nearly 2 (tails: less), so the error falls by a factor within this band.
PER_Q_LOW, PER_Q_HIGH = 2.2, 4.4

# num.level.rel8 -- relative error of one vector at 8 bits: sqrt(LLOYD_MAX[7] * PER_BIT_HIGH) is
# 0.75 per cent on average; a short vector or an outlier that clips can be several times worse.
REL8 = 0.05

# attend.error.* -- u is the unit roundoff of bf16; a partial may err twice as much as plain bf16
# attention, and by a share of the bound of a row, for calls where plain bf16 rounds nothing. fp32
# arithmetic over D <= 1024 and any number of tokens needs a tenth of that share.
BF16 = 2.0**-8
ATTEND = 2.0
ATTEND_SHARE = 1 / 1024
ATTEND_ROWS = 64
LSE_FLOOR = 2.0**-12
