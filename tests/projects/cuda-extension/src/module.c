#define PY_SSIZE_T_CLEAN
#include <Python.h>

const char *architectures(void);
const char *compute(int *values, int count);

static PyObject *say_architectures(PyObject *self, PyObject *unused) {
  return PyUnicode_FromString(architectures());
}

/* 3 * value + 7 for each of some integers, worked out on the device. */
static PyObject *run(PyObject *self, PyObject *values) {
  PyObject *items = PySequence_Fast(values, "a sequence of integers is needed");
  if (items == NULL) {
    return NULL;
  }
  int count = (int)PySequence_Fast_GET_SIZE(items);
  int *numbers = PyMem_Calloc(count + 1, sizeof(int));
  for (int at = 0; numbers != NULL && at < count; at++) {
    numbers[at] = (int)PyLong_AsLong(PySequence_Fast_GET_ITEM(items, at));
  }
  const char *wrong = numbers == NULL || PyErr_Occurred() ? "no integers" : compute(numbers, count);
  PyObject *result = NULL;
  if (wrong == NULL) {
    result = PyList_New(count);
    for (int at = 0; result != NULL && at < count; at++) {
      PyList_SET_ITEM(result, at, PyLong_FromLong(numbers[at]));
    }
  } else if (!PyErr_Occurred()) {
    PyErr_SetString(PyExc_RuntimeError, wrong);
  }
  PyMem_Free(numbers);
  Py_DECREF(items);
  return result;
}

static PyMethodDef methods[] = {
    {"architectures", say_architectures, METH_NOARGS, "What the device code was compiled for, as nvcc's macro has it."},
    {"run", run, METH_O, "3 * value + 7 for each of some integers, worked out on the device."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", NULL, -1, methods};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&definition); }
