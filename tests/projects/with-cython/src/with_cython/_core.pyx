# distutils: language = c++
from libcpp.vector cimport vector


def doubled(values):
    """Twice each of some numbers; an assertion holds the path of this file."""
    cdef vector[long] held = values
    assert held.size() == len(values)
    return [2 * value for value in held]
