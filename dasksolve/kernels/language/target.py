"""The processor that numba compiles for: the width of its vectors, and whether it has fma.

That is the one that this runs on, unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another.
"""

import os
import re
from contextlib import suppress
from typing import Any

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


def probed(name: str, features: str) -> tuple[int, bool]:
    """Bytes of a vector, and whether fma is an instruction, of a processor by LLVM's names."""
    initialize_llvm()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(cpu=name, features=features)
    assembly = machine.emit_assembly(binding.parse_assembly(_PROBE))
    vector_bytes = 64 if "%zmm" in assembly else 32 if "%ymm" in assembly else 16
    return vector_bytes, not re.search(r"\bfma\b", assembly)


def processor() -> str:
    """LLVM's name of the processor, which it knows on every system."""
    return config.CPU_NAME or binding.get_host_cpu_name()


def target() -> tuple[int, bool]:
    """The same of what numba compiles for."""
    features = config.CPU_FEATURES
    if config.CPU_NAME is None and features is None and config.ENABLE_AVX:
        with suppress(RuntimeError):  # it does not know this machine
            known = binding.get_host_cpu_features()
            if known.get("fma"):  # else it may be no x86
                return 64 if known.get("avx512f") else 32 if known.get("avx2") else 16, True
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


_natural, FMA = target()
VECTOR_BYTES = chosen_width(os.environ.get(VARIABLE), _natural)
