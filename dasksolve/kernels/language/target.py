"""The processor that numba compiles for: the width of its vectors, and what it does well.

That is the one that this runs on, unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another.
"""

import os
import re
from contextlib import suppress
from typing import Any, NamedTuple

from dasksolve.kernels.language.backend import binding, get_host_cpu_features, initialize_llvm
from dasksolve.kernels.language.backend import config as settings

config: Any = settings  # numba sets its members from the environment
VARIABLE = "DASKSOLVE_VECTOR_BYTES"
WIDTHS = (16, 32, 64)

# What a compiler makes of this tells what no list of features does: a name alone has features too.
_PROBE = """
declare <8 x double> @llvm.fma.v8f64(<8 x double>, <8 x double>, <8 x double>)
define <8 x double> @probe(<8 x double> %x, <8 x double> %y, <8 x double> %z) {
  %r = call <8 x double> @llvm.fma.v8f64(<8 x double> %x, <8 x double> %y, <8 x double> %z)
  ret <8 x double> %r
}
"""
_HALVES = """
define <32 x half> @probe(<32 x half> %x, <32 x half> %y) {
  %r = fadd <32 x half> %x, %y
  ret <32 x half> %r
}
"""


class Abilities(NamedTuple):
    """What the kernels are compiled for."""

    vector_bytes: int
    """Of a vector."""
    fma: bool
    """Whether fma is an instruction."""
    few_registers: bool
    """Whether it has 16 of vectors and none of masks, as x86 before AVX-512; else 32."""
    scatters: bool
    """Whether it scatters a vector of float32 faster than one number after the other.

    Intel's do since they compute in float16 (15 cycles for an exchange, 26 one by one), but earlier
    ones were slowed down against attacks, and AMD's take 9 cycles for half a vector.
    """


def probed(name: str, features: str) -> Abilities:
    """What a processor has, by LLVM's names."""
    initialize_llvm()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(cpu=name, features=features)
    assembly = machine.emit_assembly(binding.parse_assembly(_PROBE))
    vector_bytes = 64 if "%zmm" in assembly else 32 if "%ymm" in assembly else 16
    scatters = vector_bytes == 64 and "vaddph" in machine.emit_assembly(
        binding.parse_assembly(_HALVES)
    )
    few = vector_bytes < 64 and "%xmm" in assembly.replace("%ymm", "%xmm")
    return Abilities(vector_bytes, not re.search(r"\bfma\b", assembly), few, scatters)


def processor() -> str:
    """LLVM's name of the processor, which it knows on every system."""
    return config.CPU_NAME or binding.get_host_cpu_name()


def target() -> Abilities:
    """What that has which numba compiles for."""
    features = config.CPU_FEATURES
    if config.CPU_NAME is None and features is None and config.ENABLE_AVX:
        with suppress(RuntimeError):  # it does not know this machine
            known = binding.get_host_cpu_features()
            if known.get("fma"):  # else it may be no x86
                vector_bytes = 64 if known.get("avx512f") else 32 if known.get("avx2") else 16
                scatters = vector_bytes == 64 and bool(known.get("avx512fp16"))
                return Abilities(vector_bytes, True, vector_bytes < 64, scatters)
    if features is None:
        features = get_host_cpu_features()
    return probed(processor(), features)


def chosen_width(word: str | None, natural: int) -> int:
    """Bytes of a vector as `VARIABLE` has them, or those of the processor."""
    if word is None:
        return natural
    if word not in map(str, WIDTHS):
        raise ValueError(
            f"{VARIABLE}={word!r} is not the width of a vector in bytes: give 16, 32 or 64, or "
            f"leave it away for that of the processor ({natural})"
        )
    return int(word)


_natural, FMA, _few, _scatters = target()
VECTOR_BYTES = chosen_width(os.environ.get(VARIABLE), _natural)
FEW_REGISTERS = _few and _natural >= VECTOR_BYTES
SCATTERS = _scatters and VECTOR_BYTES == 64
