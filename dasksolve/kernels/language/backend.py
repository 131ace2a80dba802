"""The one door to llvmlite and to what numba keeps to itself: all of it comes through here.

None of these names is promised to stay, so numba has an upper bound in pyproject.toml. When that is
raised, `tests/kernels/test_backend.py` says which are gone, and what they were for.
"""

from llvmlite import binding, ir
from numba.core import cgutils, config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary, get_host_cpu_features, initialize_llvm
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaTypeError
from numba.core.registry import CPUDispatcher
from numba.core.runtime.nrt import rtsys
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.np.numpy_support import as_dtype

__all__ = [
    "AbstractTemplate",
    "CPUDispatcher",
    "CompileResultCacheImpl",
    "Compiler",
    "FunctionCache",
    "IndexDataCacheFile",
    "JITCodeLibrary",
    "NumbaTypeError",
    "as_dtype",
    "binding",
    "cgutils",
    "config",
    "get_host_cpu_features",
    "global_compiler_lock",
    "infer_global",
    "initialize_llvm",
    "ir",
    "rtsys",
    "signature",
]
