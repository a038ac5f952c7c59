#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "generated.h"

const char *helper_file(void);
int helper_next(void);

static PyObject *say(PyObject *self, PyObject *unused) {
  return Py_BuildValue("sssi", FROM, generated_file(), helper_file(), helper_next());
}

static PyMethodDef methods[] = {{"say", say, METH_NOARGS, __FILE__}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_core", NULL, -1, methods};

PyMODINIT_FUNC PyInit__core(void) { return PyModule_Create(&definition); }
