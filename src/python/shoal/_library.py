# SPDX-License-Identifier: MIT
"""The shared library, by the declarations that header.py has made of shoal.h."""
from ._header import ffi

lib = ffi.dlopen('libshoal.so.0')
NULL = ffi.NULL
