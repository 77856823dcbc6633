#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Make _header.py, which tells cffi what shoal.h declares, of the header itself.

usage: header.py SHOAL.H OUTPUT

No compiler is asked: the header is plain enough for cffi once comments and the preprocessor's lines are gone. So the
module is the same on each machine, and who imports it needs cffi's backend alone. tests/python/test_layout.py holds
every size, offset and constant in it against the C compiler.
"""
import re
import sys

import cffi

# By every ABI of Linux on a 64-bit machine.
SYSTEM = 'typedef unsigned int uid_t; typedef unsigned int mode_t; typedef int pid_t;\n'


def declarations(text):
    """What cffi understands of a header's text"""
    text = re.sub(r'/\*.*?\*/', '', text, flags=re.S)
    text = re.sub(r'^#ifdef __cplusplus.*?^#endif', '', text, flags=re.S | re.M)
    text = re.sub(r'^#\s*(ifndef|endif|include|define SHOAL_H$).*', '', text, flags=re.M)
    text = text.replace('UINT32_MAX', '0xFFFFFFFF').replace('(0xFFFFFFFF - 1)', '0xFFFFFFFE')
    return SYSTEM + text


def main(header, output):
    ffi = cffi.FFI()
    with open(header, encoding='utf-8') as file:
        ffi.cdef(declarations(file.read()))
    ffi.set_source('shoal._header', None)
    ffi.emit_python_code(output)


if __name__ == '__main__':
    main(*sys.argv[1:])
