#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""shoal(3), as scdoc, from the comments of the header.

usage: header.py shoal.h

The header is the reference, so nothing is told twice: a comment at the beginning of a line becomes prose, what is
indented in it stays as it is, the code below it is shown as code, and a line "---- name ----" begins a section.
"""
import re
import sys


def escape(text):
    text = re.sub(r'([\\*_~#])', r'\\\1', text)
    text = re.sub(r'`([^`]*)`', r'*\1*', text)
    text = re.sub(r'(?<!\*)\b((?:shoal|SHOAL)(?:\\_\w+)+)', r'*\1*', text)
    return re.sub(r'^([-.|\[\]<:`])', r'\\\1', text)


def literal(lines):
    return ['```', *(line.expandtabs(8) for line in lines), '```', '']


def prose(lines):
    """Paragraphs; what is indented, and what continues it, is shown as it is."""
    out, paragraph, table = [], [], []

    def flush():
        if paragraph:
            out.extend([*map(escape, paragraph), ''])
        if table:
            out.extend(literal(table))
        paragraph.clear()
        table.clear()

    for line in lines:
        if not line.strip():
            flush()
        elif line.startswith('  '):
            if paragraph:
                flush()
            table.append(line)
        else:
            if table:
                flush()
            paragraph.append(line.strip())
    flush()
    return out


def comment_lines(text):
    body = text.strip()[2:-2]
    return [re.sub(r'^ ?\* ?', '', line).rstrip() for line in body.splitlines()]


def chunks(text):
    """-> ('section', name), ('comment', text), ('code', lines)"""
    text = re.sub(r'^#ifdef __cplusplus\n.*?^#endif\n', '', text, flags=re.S | re.M)
    text = re.sub(r'^#(ifndef|define) SHOAL_H\n|^#endif\n', '', text, flags=re.M)
    token = re.compile(r'^/\* ---- (?P<section>[^\n]*?) -+ \*/\n|(?P<comment>^/\*.*?\*/)\n|'
                       r'(?P<code>(?:^(?!/\*)[^\n]+\n)+)|\n', re.S | re.M)
    at = 0
    while at < len(text):
        m = token.match(text, at)
        if not m:
            sys.exit(f'not understood: {text[at:at + 60]!r}')
        at = m.end()
        if m.lastgroup:
            yield m.lastgroup, m[m.lastgroup]


def main(path):
    text = open(path, encoding='utf-8').read()
    functions = re.findall(r'^(?!typedef)[\w \*]*?\b(shoal_\w+)\(', text, re.M)
    if len(functions) < 20:
        sys.exit('where are the functions?')
    out = ['shoal(3)', '', '# NAME', '',
           escape(', '.join(dict.fromkeys(functions))).replace('*', '') + ' - the library of shared caches', '',
           '# SYNOPSIS', '', '*#include <shoal.h>*', '', '*cc* ... $(*pkg-config --cflags --libs shoal*)', '',
           '# DESCRIPTION', '']
    for kind, what in chunks(text):
        if kind == 'section':
            out += ['# ' + what.upper(), '']
        elif kind == 'comment' and 'SPDX' not in what:
            out += prose(comment_lines(what))
        elif kind == 'code' and not what.startswith('#include'):
            out += literal(what.rstrip('\n').split('\n'))
    out += ['# SEE ALSO', '', 'shoal(7), shoal(1)']
    print('\n'.join(out))


main(*sys.argv[1:])
