/* assert() keeps the path of this file in the object, and so in the wheel. */
#undef NDEBUG
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <assert.h>

#include "second.h"

static PyObject *answer(PyObject *self, PyObject *none) {
    int value = second(21);
    assert(value == 42);
    return PyLong_FromLong(value);
}

static PyMethodDef methods[] = {
    {"answer", answer, METH_NOARGS, "42"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "with_c_extension", NULL, -1, methods};

PyMODINIT_FUNC PyInit_with_c_extension(void) { return PyModule_Create(&module); }
