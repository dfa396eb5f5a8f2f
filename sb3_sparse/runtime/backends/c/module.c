/* The kernels as a Python type: Kernel(plan, scratch, parts, action_shape, argmax, fallback).predict(observation).

   Each part is (key, shape, sizes): an array of numbers, or of classes where there are sizes. A single part with the key None is the
   observation, others are in a dict. One observation of contiguous arrays of usual types is answered here; anything else, from
   lists to batches to misuse, goes to the fallback, a Python function with the same arguments. */
#define PY_SSIZE_T_CLEAN
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <Python.h>
#include <structmember.h>
#include <numpy/arrayobject.h>

#include "kernels.h"
#ifndef SB3S_FAMILY
#define SB3S_FAMILY "none"
#endif

typedef struct {
    PyObject *key;
    int dimensions;
    npy_intp shape[8];
    npy_intp elements, width;
    /* Number of classes of each element, or NULL. */
    npy_intp *sizes;
} Part;

typedef struct {
    PyObject_HEAD
    char *memory; /* as allocated */
    sb3s_plan *plan;
    float *x;
    PyObject *fallback;
    Part *parts;
    Py_ssize_t count;
    int action_dimensions, argmax, panels;
    npy_intp action_shape[8];
    npy_intp inputs;
} Kernel;

/* From (key, shape, sizes); 0 with an exception if it is something else. */
static int fill_part(Part *part, PyObject *tuple) {
    PyObject *key, *shape, *sizes;
    npy_intp i;
    if (!PyTuple_Check(tuple) || !PyArg_ParseTuple(tuple, "OO!O!", &key, &PyTuple_Type, &shape, &PyTuple_Type, &sizes)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "no part for this kernel");
        return 0;
    }
    if (PyTuple_GET_SIZE(shape) > 8) {
        PyErr_SetString(PyExc_ValueError, "no part for this kernel");
        return 0;
    }
    part->dimensions = (int)PyTuple_GET_SIZE(shape);
    part->elements = 1;
    for (i = 0; i < part->dimensions; i++) {
        part->shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, i));
        part->elements *= part->shape[i];
    }
    part->width = part->elements;
    if (PyTuple_GET_SIZE(sizes) > 0) {
        part->sizes = PyMem_Calloc((size_t)PyTuple_GET_SIZE(sizes), sizeof(npy_intp));
        if (part->sizes == NULL) {
            PyErr_NoMemory();
            return 0;
        }
        part->elements = PyTuple_GET_SIZE(sizes);
        part->width = 0;
        for (i = 0; i < part->elements; i++) {
            part->sizes[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(sizes, i));
            part->width += part->sizes[i];
        }
    }
    if (key != Py_None) {
        Py_INCREF(key);
        part->key = key;
    }
    return !PyErr_Occurred();
}

static int Kernel_init(Kernel *self, PyObject *args, PyObject *kwargs) {
    Py_buffer plan;
    Py_ssize_t scratch;
    PyObject *parts, *action_shape, *fallback;
    npy_intp width = 0;
    int i, argmax;
    char *memory;
    uintptr_t start;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "y*nO!O!pO", &plan, &scratch, &PyTuple_Type, &parts, &PyTuple_Type, &action_shape, &argmax, &fallback))
        return -1;
    if (self->memory != NULL || PyTuple_GET_SIZE(parts) < 1 || PyTuple_GET_SIZE(action_shape) > 8 ||
        plan.len < (Py_ssize_t)sizeof(sb3s_plan) || scratch < 0) {
        PyBuffer_Release(&plan);
        PyErr_SetString(PyExc_ValueError, "no plan for this kernel");
        return -1;
    }
    memory = (char *)PyMem_Calloc(1, (size_t)(plan.len + scratch) + 192);
    if (memory == NULL) {
        PyBuffer_Release(&plan);
        PyErr_NoMemory();
        return -1;
    }
    start = ((uintptr_t)memory + 63) & ~(uintptr_t)63;
    self->memory = memory;
    self->plan = (sb3s_plan *)start;
    self->x = (float *)((start + (uintptr_t)plan.len + 63) & ~(uintptr_t)63);
    memcpy(self->plan, plan.buf, (size_t)plan.len);
    PyBuffer_Release(&plan);
    self->inputs = self->plan->inputs;
    self->panels = self->plan->panel != 0;
    self->action_dimensions = (int)PyTuple_GET_SIZE(action_shape);
    self->argmax = argmax;
    for (i = 0; i < self->action_dimensions; i++) self->action_shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(action_shape, i));
    if (PyErr_Occurred()) return -1;
    self->parts = PyMem_Calloc((size_t)PyTuple_GET_SIZE(parts), sizeof(Part));
    if (self->parts == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->count = PyTuple_GET_SIZE(parts);
    for (i = 0; i < self->count; i++) {
        if (!fill_part(&self->parts[i], PyTuple_GET_ITEM(parts, i))) return -1;
        width += self->parts[i].width;
    }
    if (width != self->inputs) {
        PyErr_SetString(PyExc_ValueError, "the parts do not fit the plan");
        return -1;
    }
    Py_INCREF(fallback);
    Py_XSETREF(self->fallback, fallback);
    return 0;
}

static int Kernel_traverse(Kernel *self, visitproc visit, void *arg) {
    Py_VISIT(self->fallback);
    return 0;
}

static int Kernel_clear(Kernel *self) {
    Py_CLEAR(self->fallback);
    return 0;
}

static void Kernel_dealloc(Kernel *self) {
    Py_ssize_t i;
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->fallback);
    for (i = 0; i < self->count; i++) {
        Py_XDECREF(self->parts[i].key);
        PyMem_Free(self->parts[i].sizes);
    }
    PyMem_Free(self->parts);
    PyMem_Free(self->memory);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* Numbers into x; 0 if they are of a type that is not for us. */
#define COPY(TYPE) \
    for (i = 0; i < n; i++) x[i] = (float)((const TYPE *)data)[i]; \
    return 1
static int read_numbers(int type, const void *data, npy_intp n, float *x) {
    npy_intp i;
    switch (type) {
    case NPY_FLOAT32:
        memcpy(x, data, sizeof(float) * (size_t)n);
        return 1;
    case NPY_FLOAT64:
        COPY(double);
    case NPY_UINT8:
    case NPY_BOOL:
        COPY(uint8_t);
    case NPY_INT8:
        COPY(int8_t);
    default:
        return 0;
    }
}

/* Classes as ones and zeros into x; 0 if one does not exist, or they are of a type that is not for us. */
static int read_classes(int type, const void *data, const Part *part, float *x) {
    npy_intp i;
    memset(x, 0, sizeof(float) * (size_t)part->width);
    if (type != NPY_INT64 && type != NPY_INT32) return 0;
    for (i = 0; i < part->elements; x += part->sizes[i++]) {
        const int64_t class = type == NPY_INT64 ? ((const int64_t *)data)[i] : ((const int32_t *)data)[i];
        if (class < 0 || class >= part->sizes[i]) return 0;
        x[class] = 1.0f;
    }
    return 1;
}

/* A part into x; 0 if it is not for us. Bytes may stay where they are, if the caller asks where. */
static int read_part(const Part *part, PyObject *object, float *x, const uint8_t **pixels) {
    PyArrayObject *array;
    npy_intp i;
    if (part->sizes && part->dimensions == 0 && (PyLong_CheckExact(object) || PyArray_IsScalar(object, Integer))) {
        const int64_t class = (int64_t)PyNumber_AsSsize_t(object, NULL);
        if (class == -1 && PyErr_Occurred()) PyErr_Clear();
        return read_classes(NPY_INT64, &class, part, x);
    }
    if (!PyArray_CheckExact(object)) return 0;
    array = (PyArrayObject *)object;
    if (PyArray_NDIM(array) != part->dimensions || !PyArray_ISCARRAY_RO(array)) return 0;
    for (i = 0; i < part->dimensions; i++)
        if (PyArray_DIM(array, (int)i) != part->shape[i]) return 0;
    if (part->sizes) return read_classes(PyArray_TYPE(array), PyArray_DATA(array), part, x);
    if (pixels && PyArray_TYPE(array) == NPY_UINT8) {
        *pixels = (const uint8_t *)PyArray_DATA(array);
        return 1;
    }
    return read_numbers(PyArray_TYPE(array), PyArray_DATA(array), part->elements, x);
}

/* The observation into self->x, or, if it is bytes, where it is; 0 if it is not for us. */
static int read_observation(Kernel *self, PyObject *object, const uint8_t **pixels) {
    float *x = self->x;
    Py_ssize_t i;
    if (self->count == 1 && self->parts->key == NULL) return read_part(self->parts, object, x, pixels);
    if (!PyDict_CheckExact(object) || PyDict_GET_SIZE(object) != self->count) return 0;
    for (i = 0; i < self->count; x += self->parts[i++].width) {
        PyObject *value = PyDict_GetItemWithError(object, self->parts[i].key);
        if (value == NULL) PyErr_Clear();
        if (value == NULL || !read_part(&self->parts[i], value, x, NULL)) return 0;
    }
    return 1;
}

static PyObject *Kernel_predict(Kernel *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *action, *result;
    const uint8_t *pixels = NULL;
    Py_ssize_t i;
    int ours = self->plan != NULL && self->plan->memory == 0 && count >= 1 && count <= 4;
    /* predict(observation, state, episode_start, deterministic): only the last one, if it is not true, changes anything. */
    if (ours && count == 4) ours = args[3] == Py_True;
    if (ours && names != NULL)
        for (i = 0; i < PyTuple_GET_SIZE(names) && ours; i++) {
            PyObject *name = PyTuple_GET_ITEM(names, i);
            if (PyUnicode_CompareWithASCIIString(name, "deterministic") == 0)
                ours = args[count + i] == Py_True && count < 4;
            else
                ours = (PyUnicode_CompareWithASCIIString(name, "state") == 0 && count < 2) ||
                       (PyUnicode_CompareWithASCIIString(name, "episode_start") == 0 && count < 3);
        }
    if (!ours || !read_observation(self, args[0], &pixels)) {
        if (self->fallback == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "this kernel has not been made");
            return NULL;
        }
        return PyObject_Vectorcall(self->fallback, args, (size_t)count, names);
    }
    action = PyArray_SimpleNew(self->action_dimensions, self->action_shape, self->argmax ? NPY_INT64 : NPY_FLOAT32);
    if (action == NULL) return NULL;
    sb3s_act(self->plan, pixels, self->x, PyArray_DATA((PyArrayObject *)action), NULL);
    result = PyTuple_New(2);
    if (result == NULL) {
        Py_DECREF(action);
        return NULL;
    }
    Py_INCREF(Py_None);
    PyTuple_SET_ITEM(result, 0, action);
    PyTuple_SET_ITEM(result, 1, Py_None);
    return result;
}

/* run(inputs, actions, states): rows of float32, or of bytes, to rows of actions, all contiguous; the states become the next ones,
   and there are none where nothing is remembered. */
static PyObject *Kernel_run(Kernel *self, PyObject *args) {
    Py_buffer inputs, actions, states = {0};
    Py_ssize_t i, n, row = 0, width = 0, memory = 0;
    int bytes = 0;
    if (!PyArg_ParseTuple(args, "y*w*|w*", &inputs, &actions, &states)) return NULL;
    n = 0;
    if (self->plan != NULL) {
        bytes = inputs.itemsize == 1;
        row = (bytes ? 1 : (Py_ssize_t)sizeof(float)) * self->inputs;
        width = (self->argmax ? 8 : 4) * (Py_ssize_t)self->plan->actions;
        memory = (Py_ssize_t)sizeof(float) * 2 * self->plan->memory;
        n = inputs.len / row;
    }
    if (self->plan == NULL || inputs.len != n * row || actions.len != n * width || states.len != n * memory)
        PyErr_SetString(PyExc_ValueError, "inputs, actions and states do not fit the kernel");
    else
        for (i = 0; i < n; i++) {
            const char *x = (const char *)inputs.buf + i * row;
            if (self->plan->panel && !bytes && n - i >= self->plan->few) {
                const int count = (int)(n - i < SB3S_PANEL ? n - i : SB3S_PANEL);
                sb3s_act_panel(self->plan, (const float *)x, count, self->x, (char *)actions.buf + i * width, (long)width);
                i += count - 1;
                continue;
            }
            if (!bytes) memcpy(self->x, x, (size_t)row);
            sb3s_act(self->plan, bytes ? (const uint8_t *)x : NULL, self->x, (char *)actions.buf + i * width,
                     memory ? (float *)((char *)states.buf + i * memory) : NULL);
        }
    PyBuffer_Release(&inputs);
    PyBuffer_Release(&actions);
    if (states.obj != NULL) PyBuffer_Release(&states);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef Kernel_methods[] = {
    {"predict", (PyCFunction)(void (*)(void))Kernel_predict, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"run", (PyCFunction)Kernel_run, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Kernel_members[] = {
    {"panels", T_INT, offsetof(Kernel, panels), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject KernelType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "sb3_sparse_kernel.Kernel",
    .tp_basicsize = sizeof(Kernel),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Kernel_init,
    .tp_dealloc = (destructor)Kernel_dealloc,
    .tp_traverse = (traverseproc)Kernel_traverse,
    .tp_clear = (inquiry)Kernel_clear,
    .tp_methods = Kernel_methods,
    .tp_members = Kernel_members,
};

static int fill_module(PyObject *module) {
    import_array1(-1);
    if (PyType_Ready(&KernelType) < 0) return -1;
    if (PyModule_AddObjectRef(module, "Kernel", (PyObject *)&KernelType) < 0) return -1;
    return PyModule_AddStringConstant(module, "family", SB3S_FAMILY);
}

/* In two phases: else Python would take two compilations for one module, by their name. */
static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)fill_module}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "sb3_sparse_kernel", NULL, 0, NULL, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_sb3_sparse_kernel(void) { return PyModuleDef_Init(&definition); }
