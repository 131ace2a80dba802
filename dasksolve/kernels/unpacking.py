"""Packed integers as what they mean, in one pass: NumPy takes one for each of its steps."""

from dasksolve.kernels.compiling.jit import jit


def kernel():
    """The kernel for integers of which one may be missing, scaled and shifted as is wanted."""

    @jit
    def unpack(stored, meant, missing, number, scaled, scale, shifted, offset):
        nothing = meant.dtype.type(float("nan"))
        for i in range(len(stored)):
            x = meant.dtype.type(stored[i])
            y = x
            if scaled:
                y = y * scale
            if shifted:
                y = y + offset
            meant[i] = nothing if missing and float(x) == number else y

    return unpack
