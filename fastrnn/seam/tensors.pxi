# Included by _core.pyx: PyTorch's tensors as arrays and back, by DLPack's C exchange API (its version 1.2,
# https://dmlc.github.io/dlpack/latest): a fifth of what Tensor.numpy() takes, two thirds of torch.from_numpy.

from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t


cdef extern from "Python.h":
    int Py_IsInitialized() nogil


cdef enum:
    DL_MAJOR = 1
    DL_MINOR = 2
    DL_CPU = 1
    DL_FLOAT = 2
    DL_AXES = 4 # at most, here


cdef struct DLTensor:
    void *data
    int32_t device_type, device_id
    int32_t ndim
    uint8_t code, bits
    uint16_t lanes
    int64_t *shape
    int64_t *strides # in elements
    uint64_t byte_offset


cdef struct DLManagedTensor: # the versioned one
    uint32_t major, minor
    void *context
    void (*deleter)(DLManagedTensor *self) noexcept nogil
    uint64_t flags
    DLTensor tensor


cdef struct DLExchange:
    uint32_t major, minor
    DLExchange *previous
    void *allocate
    void *managed_from_object
    int (*object_from_managed)(DLManagedTensor *stolen, void **to) except -1
    int (*tensor_from_object)(void *object, DLTensor *to) except -1 # borrowed
    void *work_stream


cdef struct ArrayTensor:
    # An array in a tensor's hands.
    DLManagedTensor managed
    int64_t shape[DL_AXES]
    int64_t strides[DL_AXES]


cdef void drop_array(void *array) noexcept with gil:
    Py_DECREF(<object>array)


cdef void end_array_tensor(DLManagedTensor *self) noexcept nogil:
    if Py_IsInitialized():
        drop_array(self.context)
    free(self)


cdef bint is_contiguous(const DLTensor *tensor):
    cdef int64_t packed = 1
    cdef int i
    for i in range(tensor.ndim - 1, -1, -1):
        if tensor.shape[i] != 1 and tensor.strides[i] != packed:
            return False
        packed *= tensor.shape[i]
    return True


cdef class TensorExchange:
    """What fastrnn.torch.exchange.Exchange says, for tensors of `kind`, torch.Tensor, of up to four axes.
    AttributeError where that is too old.
    """
    cdef object kind
    cdef const DLExchange *api

    def __cinit__(self, kind):
        self.kind = kind
        self.api = <const DLExchange *>PyCapsule_GetPointer(kind.__dlpack_c_exchange_api__, "dlpack_exchange_api")
        while self.api != NULL and self.api.major > DL_MAJOR:
            self.api = self.api.previous
        if self.api == NULL or self.api.major < DL_MAJOR or self.api.tensor_from_object == NULL:
            raise AttributeError(f"{kind.__name__}: no exchange of DLPack's version {DL_MAJOR}")

    cdef int look(self, object tensor, DLTensor *to) except -1:
        cdef int i
        if not isinstance(tensor, self.kind):
            raise TypeError(f"tensor: expected a {self.kind.__name__}, got {type(tensor).__name__}")
        self.api.tensor_from_object(<void *>tensor, to)
        if to.device_type != DL_CPU or to.code != DL_FLOAT or to.bits not in (32, 64) or to.ndim > DL_AXES:
            raise ValueError(f"tensor: expected float32 or float64 on the CPU, up to {DL_AXES} axes")
        if to.data == NULL: # of a subclass's tensor of tensors, of known zeros, or of no elements
            for i in range(to.ndim):
                if to.shape[i] == 0:
                    return 0
            raise ValueError(f"tensor: expected one with memory of its own, got {type(tensor).__name__} without")
        return 0

    def addresses(self, tensors):
        cdef DLTensor seen
        addresses = []
        for tensor in tensors:
            seen.data = NULL
            if tensor is not None:
                self.look(tensor, &seen)
            addresses.append(<uintptr_t>seen.data)
        return addresses

    def arrays(self, tensors, bint contiguous):
        cdef DLTensor seen
        cdef int i
        cdef cnp.npy_intp strides[DL_AXES]
        arrays = []
        for tensor in tensors:
            if tensor is None:
                arrays.append(None)
                continue
            if tensor.is_neg():
                tensor = tensor.resolve_neg()
            self.look(tensor, &seen)
            if contiguous and not is_contiguous(&seen):
                tensor = tensor.contiguous()
                self.look(tensor, &seen)
            for i in range(seen.ndim):
                strides[i] = seen.strides[i] * (seen.bits // 8)
            array = cnp.PyArray_New(
                cnp.ndarray, seen.ndim, <cnp.npy_intp *>seen.shape,
                cnp.NPY_FLOAT32 if seen.bits == 32 else cnp.NPY_FLOAT64, strides,
                <char *>seen.data + seen.byte_offset, 0, cnp.NPY_ARRAY_WRITEABLE, None)
            cnp.set_array_base(array, tensor)
            arrays.append(array)
        return arrays

    def tensors(self, arrays):
        tensors = []
        for array in arrays:
            tensors.append(None if array is None else self.tensor(array))
        return tensors

    cdef object tensor(self, cnp.ndarray array):
        cdef int i, ndim = cnp.PyArray_NDIM(array)
        cdef void *made = NULL
        if cnp.PyArray_TYPE(array) not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or ndim > DL_AXES:
            raise ValueError(f"array: expected float32 or float64 and up to {DL_AXES} axes")
        cdef ArrayTensor *own = <ArrayTensor *>malloc(sizeof(ArrayTensor))
        if own == NULL:
            raise MemoryError
        own.managed.major = DL_MAJOR
        own.managed.minor = DL_MINOR
        own.managed.context = <void *>array
        own.managed.deleter = end_array_tensor
        own.managed.flags = 0
        own.managed.tensor = DLTensor(
            data=cnp.PyArray_DATA(array), device_type=DL_CPU, device_id=0, ndim=ndim, code=DL_FLOAT,
            bits=<uint8_t>(8 * cnp.PyArray_ITEMSIZE(array)), lanes=1, shape=&own.shape[0],
            strides=&own.strides[0], byte_offset=0)
        for i in range(ndim):
            own.shape[i] = cnp.PyArray_DIM(array, i)
            own.strides[i] = cnp.PyArray_STRIDE(array, i) // cnp.PyArray_ITEMSIZE(array)
        Py_INCREF(array)
        self.api.object_from_managed(&own.managed, &made)
        tensor = <object>made
        Py_DECREF(tensor) # made holds one, and so does tensor
        return tensor
