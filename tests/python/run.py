#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the unittest cases of files and print them as TAP.

usage: run.py FILE...
"""
import importlib.util
import pathlib
import sys
import unittest


class Tap(unittest.TestResult):
    """One line for each case, and what it said before it"""

    def say(self, ok, test, tail=''):
        name = test.id().split('.', 1)[-1]
        print('ok' if ok else 'not ok', self.testsRun, '-', name + tail, flush=True)

    def failed(self, test, error):
        for line in self._exc_info_to_string(error, test).splitlines():
            print('#', line)
        self.say(False, test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.say(True, test)

    def addError(self, test, err):
        super().addError(test, err)
        self.failed(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.failed(test, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.say(True, test, ' # SKIP ' + reason)


def load(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


sys.path.insert(0, str(pathlib.Path(__file__).parent))
result = Tap()
unittest.TestSuite(map(load, sys.argv[1:])).run(result)
print(f'1..{result.testsRun}', flush=True)
sys.exit(not result.wasSuccessful() or not result.testsRun)
