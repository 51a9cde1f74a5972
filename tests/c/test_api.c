// Statuses for bad arguments, and the products and functions that can be called on their own.
#include "layer.h"

#include <float.h>
#include <limits.h>

// --- Statuses -----------------------------------------------------------------------------------

// clang-format off
#define PLAIN(cell_, dtype_, I, H) {.cell = cell_, .dtype = dtype_, .input_size = I, .hidden_size = H}
#define WITH(cell_, ...) {.cell = cell_, .input_size = 3, .hidden_size = 5, __VA_ARGS__}
// clang-format on

static void check_sizes(void) {
    const frnn_layer good = PLAIN(FRNN_LSTM, FRNN_F32, 3, 5);
    const frnn_batch batch = {.batch = 2, .time = 3};
    size_t bytes;
    EXPECT(FRNN_OK, frnn_pack_size(&good, FRNN_PACK_BACKWARD, &bytes));
    EXPECT(FRNN_OK, frnn_tape_size(&good, &batch, 0, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_pack_size(NULL, FRNN_PACK_FORWARD, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_pack_size(&good, (frnn_pack_kind)4, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT,
           frnn_pack_size(&(frnn_layer)PLAIN(FRNN_LSTM, FRNN_F64, 3, 5), FRNN_PACK_BFLOAT16, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_tape_size(NULL, &batch, 0, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_tape_size(&good, NULL, 0, &bytes));

    static const frnn_layer bad[] = {
        PLAIN((frnn_cell)99, FRNN_F32, 3, 5),
        PLAIN(FRNN_LSTM, (frnn_dtype)2, 3, 5),
        PLAIN(FRNN_LSTM, FRNN_F32, 0, 5),
        PLAIN(FRNN_LSTM, FRNN_F32, 3, 0),
        PLAIN(FRNN_LSTM, FRNN_F32, -1, 5),
        PLAIN(FRNN_LSTM, FRNN_F32, 3, -1),
        WITH(FRNN_LSTM, .proj_size = -1),
        WITH(FRNN_LSTM, .proj_size = 6),
        WITH(FRNN_GRU, .proj_size = 3),
        WITH(FRNN_RNN_TANH, .proj_size = 5),
        WITH(FRNN_GRU, .peephole = 1),
        WITH(FRNN_LSTM, .peephole = 1, .layer_norm = 1),
        WITH(FRNN_GRU_BEFORE, .layer_norm = 1),
        WITH(FRNN_GRU, .zoneout_c = 0.5),
        WITH(FRNN_LSTM, .clip = -1),
        WITH(FRNN_LSTM, .clip = NAN),
        WITH(FRNN_LSTM, .clip = INFINITY),
        WITH(FRNN_LSTM, .clip = 1e39),
        WITH(FRNN_LSTM, .zoneout_h = -0.5),
        WITH(FRNN_LSTM, .zoneout_h = 1),
        WITH(FRNN_LSTM, .zoneout_h = NAN),
        WITH(FRNN_LSTM, .zoneout_c = -0.5),
        WITH(FRNN_LSTM, .zoneout_c = 1),
        WITH(FRNN_LSTM, .zoneout_c = NAN),
        WITH(FRNN_GRU, .recurrent_dropout = 1),
        WITH(FRNN_GRU, .recurrent_dropout = -0.5),
        WITH(FRNN_GRU, .recurrent_dropout = NAN),
        WITH(FRNN_GRU, .gate_activation = (frnn_function)6),
        WITH(FRNN_GRU, .gate_activation = (frnn_function)-1),
        WITH(FRNN_GRU, .state_activation = (frnn_function)6),
        WITH(FRNN_GRU, .state_activation = (frnn_function)-1),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        EXPECT(FRNN_BAD_ARGUMENT, frnn_pack_size(&bad[i], FRNN_PACK_FORWARD, &bytes));
        EXPECT(FRNN_BAD_ARGUMENT, frnn_tape_size(&bad[i], &batch, 0, &bytes));
    }
    static const frnn_layer large[] = {
        PLAIN(FRNN_LSTM, FRNN_F32, INT64_MAX, 1),         PLAIN(FRNN_LSTM, FRNN_F32, 1, INT64_MAX),
        PLAIN(FRNN_LSTM, FRNN_F32, INT32_MAX, INT32_MAX), PLAIN(FRNN_GRU, FRNN_F64, INT32_MAX, INT32_MAX),
        PLAIN(FRNN_LSTM, FRNN_F64, 1, INT32_MAX),         PLAIN(FRNN_GRU, FRNN_F64, 1, (int64_t)1 << 30),
    };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        for (int kind = 0; kind < 2; kind++)
            EXPECT(FRNN_TOO_LARGE, frnn_pack_size(&large[i], (frnn_pack_kind)kind, &bytes));

    static const frnn_batch bad_batches[] = {
        {.batch = 0, .time = 3},  {.batch = 2, .time = 0}, {.batch = -1, .time = 3},
        {.batch = 2, .time = -1}, {2, 3, NULL, 0, -1, 1},  {2, 3, NULL, 0, 3, 0},
        {2, 3, NULL, 0, 0, -1},   {2, 3, NULL, 0, 2, 2},   {2, 3, NULL, 0, 0, INT64_MAX}};
    for (size_t i = 0; i < sizeof bad_batches / sizeof *bad_batches; i++)
        EXPECT(FRNN_BAD_ARGUMENT, frnn_tape_size(&good, &bad_batches[i], 0, &bytes));
    static const int64_t lengths[][2] = {{-1, 3}, {3, 4}, {INT64_MIN, 1}, {INT64_MAX, INT64_MAX}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        EXPECT(FRNN_BAD_ARGUMENT,
               frnn_tape_size(&good, &(frnn_batch){.batch = 2, .time = 3, .lengths = lengths[i]}, 0, &bytes));
    static const int64_t p31 = (int64_t)1 << 31, p40 = (int64_t)1 << 40;
    const frnn_batch large_batches[] = {{.batch = p40, .time = p40},
                                        {.batch = p31, .time = p31},
                                        {.batch = INT64_MAX, .time = 1},
                                        {.batch = 1, .time = INT64_MAX}};
    for (size_t i = 0; i < sizeof large_batches / sizeof *large_batches; i++)
        EXPECT(FRNN_TOO_LARGE, frnn_tape_size(&good, &large_batches[i], 0, &bytes));
    EXPECT(FRNN_TOO_LARGE, frnn_tape_size(&large[1], &batch, 0, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_tape_size(&good, &batch, -1, &bytes));
    const frnn_batch part = {.batch = 2, .time = 3, .steps = 2};
    EXPECT(FRNN_OK, frnn_tape_size(&good, &part, 0, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_tape_size(&good, &part, 1, &bytes));
}

// What variants may be, the shapes of their weights, and that each of those is wanted.
static void check_weights(void) {
    static const struct {
        frnn_layer layer;
        struct {
            int axes;
            int64_t shape[2];
        } weights[FRNN_WEIGHTS]; // by frnn_weight
    } layers[] = {
        {WITH(FRNN_RNN_RELU, .clip = FLT_MAX, .state_activation = FRNN_IDENTITY),
         {{2, {5, 3}}, {2, {5, 5}}, {1, {5}}, {1, {5}}}},
        {WITH(FRNN_GRU_BEFORE, .zoneout_h = 0.99, .recurrent_dropout = 0.99),
         {{2, {15, 3}}, {2, {15, 5}}, {1, {15}}, {1, {15}}}},
        {WITH(FRNN_LSTM, .proj_size = 2, .peephole = 1, .zoneout_c = 0.99),
         {{2, {20, 3}}, {2, {20, 2}}, {1, {20}}, {1, {20}}, {2, {2, 5}}, {2, {3, 5}}}},
        {WITH(FRNN_LSTM_FORGET, .proj_size = 5, .peephole = 1),
         {{2, {15, 3}}, {2, {15, 5}}, {1, {15}}, {1, {15}}, {2, {5, 5}}, {2, {2, 5}}}},
        {WITH(FRNN_LSTM, .layer_norm = 1),
         {{2, {20, 3}}, {2, {20, 5}}, {1, {20}}, {1, {20}}, {0}, {0}, {1, {20}}, {1, {20}}, {2, {2, 5}}}},
        {WITH(FRNN_GRU_MINIMAL, .layer_norm = 1),
         {{2, {10, 3}}, {2, {10, 5}}, {1, {10}}, {1, {10}}, {0}, {0}, {1, {10}}, {1, {10}}}},
    };
    static const float zeros[20 * 5];
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const frnn_layer *layer = &layers[i].layer;
        const char *name = frnn_cell_name(layer->cell);
        const void *weights[FRNN_WEIGHTS + 1];
        for (int w = 0; w <= FRNN_WEIGHTS; w++) {
            int64_t shape[2];
            const int axes = w < FRNN_WEIGHTS ? layers[i].weights[w].axes : 0;
            CHECK(frnn_weight_shape(layer, (frnn_weight)w, shape) == axes, "%s: weight %d has not %d axes",
                  name, w, axes);
            for (int axis = 0; axis < axes; axis++)
                CHECK(shape[axis] == layers[i].weights[w].shape[axis], "%s: axis %d of weight %d is %d", name,
                      axis, w, (int)shape[axis]);
            weights[w] = axes && w != FRNN_B_IH && w != FRNN_B_HH ? zeros : NULL;
        }
        for (int kind = FRNN_PACK_FORWARD; kind <= FRNN_PACK_BORROWED; kind++) {
            const frnn_status right =
                kind == FRNN_PACK_BORROWED && layer->proj_size ? FRNN_BAD_ARGUMENT : FRNN_OK;
            size_t bytes = 0;
            EXPECT(right, frnn_pack_size(layer, (frnn_pack_kind)kind, &bytes));
            memory pack = memory_new(bytes, 0);
            EXPECT(right, frnn_pack(layer, (frnn_pack_kind)kind, weights, pack.data, 1));
            for (int w = 0; w < FRNN_WEIGHTS; w++) {
                if (!weights[w]) continue;
                weights[w] = NULL;
                EXPECT(FRNN_BAD_ARGUMENT, frnn_pack(layer, (frnn_pack_kind)kind, weights, pack.data, 1));
                weights[w] = zeros;
            }
            memory_end(&pack, "a pack");
        }
    }
}

// Each statement spoils one argument of a good call. The good call comes last.
#define SPOILED(status, function, args_type, statement) \
    do { \
        args_type args = good; \
        statement; \
        EXPECT(status, function##_workspace(&args, &bytes)); \
        EXPECT(status, function(&args, workspace)); \
    } while (0)
#define SPOIL_FORWARD(statement) SPOILED(FRNN_BAD_ARGUMENT, frnn_forward, frnn_forward_args, statement)
#define SPOIL_BACKWARD(statement) SPOILED(FRNN_BAD_ARGUMENT, frnn_backward, frnn_backward_args, statement)
#define SPOIL_BATCH(spoil, args_type, function) \
    do { \
        static const int64_t low[] = {3, -1}, high[] = {4, 3}, ids[] = {0, 1, 2, 0, 3, 1}, \
                             huge = (int64_t)1 << 40; \
        spoil(args.pack = NULL); \
        spoil(args.pack = zeros); \
        spoil(args.x.data = NULL); \
        spoil(args.threads = 0); \
        spoil(args.threads = -1); \
        spoil(args.batch.batch = 0); \
        spoil(args.batch.time = 0); \
        spoil(args.batch.time = -1); \
        spoil(args.batch.first_step = 3); \
        spoil(args.batch.steps = 4); \
        spoil(args.checkpoint_every = -1); \
        spoil((args.checkpoint_every = 1, args.batch.steps = 1)); \
        spoil(args.ids = ((frnn_ids){{(void *)ids, 3, 1}, 3})); \
        spoil(args.ids = ((frnn_ids){{(void *)ids, 3, 1}, 0})); \
        spoil((args.ids = ((frnn_ids){{(void *)ids, 3, 1}, 4}), args.checkpoint_every = 1)); \
        spoil((args.ids = ((frnn_ids){{(void *)ids, 3, 1}, 4}), \
               args.provider = &(frnn_provider){naive_gemm, NULL}, args.w_ih = zeros)); \
        spoil(args.batch.lengths = low); \
        spoil(args.batch.lengths = high); \
        spoil((args.provider = &(frnn_provider){NULL, NULL}, args.w_ih = zeros)); \
        spoil((args.provider = &(frnn_provider){naive_gemm, NULL}, args.w_ih = NULL)); \
        SPOILED(FRNN_TOO_LARGE, function, args_type, args.batch.batch = args.batch.time = huge); \
        SPOILED(FRNN_TOO_LARGE, function, args_type, args.batch.batch = INT64_MAX); \
        SPOILED(FRNN_TOO_LARGE, function, args_type, args.batch.time = INT64_MAX); \
        EXPECT(FRNN_BAD_ARGUMENT, function##_workspace(NULL, &bytes)); \
        EXPECT(FRNN_BAD_ARGUMENT, function(NULL, workspace)); \
        EXPECT(FRNN_BAD_ARGUMENT, function(&good, NULL)); \
    } while (0)

static void check_calls(void) {
    enum { ENOUGH = 1 << 16 };
    const frnn_layer layer = PLAIN(FRNN_GRU, FRNN_F32, 3, 5);
    static const _Alignas(64) float zeros[1024]; // no pack, if taken for one
    static float written[1024];
    size_t bytes;
    memory forward_pack = memory_new(ENOUGH, 0), backward_pack = memory_new(ENOUGH, 0);
    memory tape = memory_new(ENOUGH, 0), scratch = memory_new(ENOUGH, 0);
    void *const workspace = scratch.data;
    const void *const weights[FRNN_WEIGHTS] = {zeros, zeros}; // no biases
    EXPECT(FRNN_BAD_ARGUMENT, frnn_pack(&layer, FRNN_PACK_FORWARD, NULL, workspace, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_pack(&layer, FRNN_PACK_FORWARD, weights, NULL, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_pack(&layer, FRNN_PACK_FORWARD, weights, forward_pack.data, 0));
    EXPECT(FRNN_OK, frnn_pack(&layer, FRNN_PACK_FORWARD, weights, forward_pack.data, 1));
    EXPECT(FRNN_OK, frnn_pack(&layer, FRNN_PACK_BACKWARD, weights, backward_pack.data, 1));
    {
        const frnn_forward_args good = {.pack = forward_pack.data,
                                        .batch = {.batch = 2, .time = 3},
                                        .x = {(void *)zeros, 9, 3},
                                        .y = {written, 15, 5},
                                        .tape = tape.data,
                                        .threads = 1};
        SPOIL_FORWARD(args.pack = backward_pack.data);
        SPOIL_FORWARD((args.checkpoint_every = 1, args.tape = NULL));
        SPOIL_BATCH(SPOIL_FORWARD, frnn_forward_args, frnn_forward);
        CHECK(untouched(scratch.data, scratch.data + ENOUGH),
              "a refused forward call wrote into the workspace");
        EXPECT(FRNN_OK, frnn_forward(&good, workspace));
    }
    {
        const frnn_backward_args good = {.pack = backward_pack.data,
                                         .batch = {.batch = 2, .time = 3},
                                         .x = {(void *)zeros, 9, 3},
                                         .tape = tape.data,
                                         .dx = {written, 9, 3},
                                         .threads = 1};
        SPOIL_BACKWARD(args.pack = forward_pack.data);
        SPOIL_BACKWARD(args.tape = NULL);
        SPOIL_BACKWARD(args.checkpoint_every = 1);
        SPOIL_BACKWARD((args.checkpoint_every = 1, args.forward_pack = backward_pack.data));
        SPOIL_BATCH(SPOIL_BACKWARD, frnn_backward_args, frnn_backward);
        EXPECT(FRNN_OK, frnn_backward(&good, workspace));
    }
    memory_end(&forward_pack, "a pack"), memory_end(&backward_pack, "a pack");
    memory_end(&tape, "a tape"), memory_end(&scratch, "a workspace");
}

// An error that the provider reports comes back, whichever of its calls it is.
static void check_failing_provider(void) {
    static const float zeros[1024];
    static float written[1024];
    const frnn_layer layer = PLAIN(FRNN_GRU, FRNN_F32, 3, 5);
    const void *const weights[FRNN_WEIGHTS] = {zeros, zeros};
    const frnn_batch batch = {.batch = 2, .time = 3};
    gemm_context context = {0, 0};
    const frnn_provider provider = {naive_gemm, &context};
    size_t bytes;
    memory pack = memory_new(1 << 16, 0), tape = memory_new(1 << 16, 0), workspace = memory_new(1 << 16, 0);
    const frnn_forward_args forward = {.pack = pack.data,
                                       .batch = batch,
                                       .x = {(void *)zeros, 9, 3},
                                       .tape = tape.data,
                                       .provider = &provider,
                                       .w_ih = zeros,
                                       .threads = 1};
    const frnn_backward_args backward = {.pack = pack.data,
                                         .batch = batch,
                                         .x = {(void *)zeros, 9, 3},
                                         .tape = tape.data,
                                         .dx = {written, 9, 3},
                                         .gradients = {written + 100, written + 200},
                                         .provider = &provider,
                                         .w_ih = zeros,
                                         .threads = 1};
    for (int kind = 0; kind < 2; kind++) {
        EXPECT(FRNN_OK, frnn_pack(&layer, (frnn_pack_kind)kind, weights, pack.data, 1));
        EXPECT(FRNN_OK,
               kind ? frnn_backward_workspace(&backward, &bytes) : frnn_forward_workspace(&forward, &bytes));
        CHECK(bytes <= workspace.bytes, "a workspace of %zu bytes", bytes);
        for (context.fail_at = 1;; context.fail_at++) {
            context.calls = 0;
            const frnn_status status =
                kind ? frnn_backward(&backward, workspace.data) : frnn_forward(&forward, workspace.data);
            if (context.calls < context.fail_at) break; // there are no more
            CHECK(status == FRNN_GEMM_FAILED, "call %d failed, the status is: %s", context.fail_at,
                  frnn_status_text(status));
        }
        CHECK(context.calls >= (kind ? 4 : 1), "the provider was called %d times only", context.calls);
    }
    memory_end(&pack, "a pack"), memory_end(&tape, "a tape"), memory_end(&workspace, "a workspace");
}

static void check_machine(void) {
    EXPECT(FRNN_NO_ISA, frnn_set_isa("sse9"));
    EXPECT(FRNN_NO_ISA, frnn_set_isa(""));
    EXPECT(FRNN_NO_ISA, frnn_set_isa(NULL));
    CHECK(frnn_has_isa("generic") && !frnn_has_isa("sse9") && !frnn_has_isa(NULL), "frnn_has_isa");
    EXPECT(FRNN_OK, frnn_set_isa("generic"));
    CHECK(IS_GENERIC(frnn_isa()), "frnn_isa is %s", frnn_isa());
    EXPECT(FRNN_BAD_ARGUMENT, frnn_set_num_threads(-1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_set_num_threads(INT_MAX));
    EXPECT(FRNN_OK, frnn_set_num_threads(3));
    CHECK(frnn_num_threads() == 3, "3 threads are %d", frnn_num_threads());
    EXPECT(FRNN_OK, frnn_set_num_threads(0));
    CHECK(frnn_num_threads() == frnn_default_num_threads(), "the default is %d threads", frnn_num_threads());
    setenv("FASTRNN_NUM_THREADS", "5", 1);
    CHECK(frnn_default_num_threads() == 5, "FASTRNN_NUM_THREADS=5 gives %d", frnn_default_num_threads());
    unsetenv("FASTRNN_NUM_THREADS");
    for (int status = FRNN_OK; status <= FRNN_GEMM_FAILED + 1; status++)
        CHECK(strlen(frnn_status_text((frnn_status)status)) > 0, "status %d has no text", status);
}

// --- Products and functions ---------------------------------------------------------------------

static void check_matmul(int64_t m, int64_t n, int64_t k, int ta, int tb) {
    double *values = calloc((size_t)(m * k + k * n), sizeof *values), *a = values, *b = values + m * k;
    double *results[2] = {calloc((size_t)(m * n), sizeof(double)), calloc((size_t)(m * n), sizeof(double))};
    for (int64_t i = 0; i < m * k + k * n; i++) values[i] = uniform();
    for (int dtype = 0; dtype < 2; dtype++) {
        int vectors = 0; // instruction sets that promise the same bits, so far
        for (int isa = 0; isa < ISAS; isa++) {
            if (!frnn_has_isa(all_isas[isa])) continue;
            EXPECT(FRNN_OK, frnn_set_isa(all_isas[isa]));
            for (int threads = 1; threads <= 3; threads++) {
                const int64_t na[3] = {ta ? k : m, 1, ta ? m : k}, nb[3] = {tb ? n : k, 1, tb ? k : n};
                array A = array_new((frnn_dtype)dtype, na, ODD_STRIDES);
                array B = array_new((frnn_dtype)dtype, nb, ODD_STRIDES);
                array C = array_new((frnn_dtype)dtype, (const int64_t[3]){m, 1, n}, ODD_STRIDES);
                array_put(&A, a), array_put(&B, b);
                size_t bytes = 0;
                EXPECT(FRNN_OK, frnn_matmul_workspace((frnn_dtype)dtype, m, n, k, threads, &bytes));
                memory workspace = memory_new(bytes, 0);
                EXPECT(FRNN_OK, frnn_matmul((frnn_dtype)dtype, m, n, k, A.data, A.stride[0], ta, B.data,
                                            B.stride[0], tb, C.data, C.stride[0], threads, workspace.data));
                memory_end(&workspace, "the workspace");
                const int first = threads == 1 && (IS_GENERIC(all_isas[isa]) || vectors++ == 0);
                array_end(&C, results[!first], "C");
                CHECK(first || memcmp(results[0], results[1], (size_t)(m * n) * sizeof(double)) == 0,
                      "matmul %dx%dx%d, %s, %d threads: other bits", (int)m, (int)n, (int)k, all_isas[isa],
                      threads);
                array_end(&A, values, "A"), array_end(&B, values + m * k, "B");
                for (int64_t i = 0; i < m && first; i++)
                    for (int64_t j = 0; j < n; j++) {
                        double sum = 0;
                        for (int64_t l = 0; l < k; l++)
                            sum += a[ta ? l * m + i : i * k + l] * b[tb ? j * k + l : l * n + j];
                        const double limit = (dtype ? 4e-15 : 2e-6) * (1 + sqrt((double)k));
                        CHECK(fabs(results[0][i * n + j] - sum) <= limit, "matmul %dx%dx%d: %g instead of %g",
                              (int)m, (int)n, (int)k, results[0][i * n + j], sum);
                    }
            }
        }
    }
    free(values), free(results[0]), free(results[1]);
}

static void check_products(void) {
    static const int64_t sizes[][3] = {{1, 1, 1},   {3, 17, 5},   {7, 33, 2},    {40, 100, 60},
                                       {5, 600, 3}, {70, 9, 300}, {2, 20, 2100}, {300, 40, 30}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_matmul(sizes[i][0], sizes[i][1], sizes[i][2], 0, 0);
        check_matmul(sizes[i][0], sizes[i][1], sizes[i][2], 1, 0);
        check_matmul(sizes[i][0], sizes[i][1], sizes[i][2], 0, 1);
    }
    float v[16] = {0};
    size_t bytes;
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul_workspace((frnn_dtype)2, 1, 1, 1, 1, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul_workspace(FRNN_F32, 0, 1, 1, 1, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul_workspace(FRNN_F32, 1, -1, 1, 1, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul_workspace(FRNN_F32, 1, 1, 1, 0, &bytes));
    EXPECT(FRNN_TOO_LARGE, frnn_matmul_workspace(FRNN_F32, 1, INT64_MAX, 1, 1, &bytes));
    EXPECT(FRNN_TOO_LARGE, frnn_matmul_workspace(FRNN_F32, 1, 1, INT64_MAX, 1, &bytes));
    EXPECT(FRNN_TOO_LARGE, frnn_matmul_workspace(FRNN_F64, 1, INT32_MAX, INT32_MAX, 1, &bytes));
    EXPECT(FRNN_BAD_ARGUMENT,
           frnn_matmul(FRNN_F32, 2, 2, 2, v, 2, 1, v + 4, 2, 1, v + 8, 2, 1, v)); // both transposed
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul(FRNN_F32, 2, 2, 2, v, 1, 0, v + 4, 2, 0, v + 8, 2, 1, v)); // lda
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul(FRNN_F32, 2, 2, 2, v, 2, 0, v + 4, 1, 0, v + 8, 2, 1, v)); // ldb
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul(FRNN_F32, 2, 2, 2, v, 2, 0, v + 4, 2, 0, v + 8, 1, 1, v)); // ldc
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul(FRNN_F32, 2, 2, 2, NULL, 2, 0, v + 4, 2, 0, v + 8, 2, 1, v));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul(FRNN_F32, 2, 2, 2, v, 2, 0, NULL, 2, 0, v + 8, 2, 1, v));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul(FRNN_F32, 2, 2, 2, v, 2, 0, v + 4, 2, 0, NULL, 2, 1, v));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_matmul(FRNN_F32, 2, 2, 2, v, 2, 0, v + 4, 2, 0, v + 8, 2, 1, NULL));
    EXPECT(FRNN_BAD_ARGUMENT,
           frnn_matmul(FRNN_F32, 2, 2, 2, v, 2, 0, v + 4, 2, 0, v + 8, 2, 0, v)); // threads
}

// Any length, in place or not, the same bits wherever a value stands; nothing else is written.
static void check_map(frnn_function function, frnn_dtype dtype) {
    enum { MOST = 70 };
    double values[MOST], expected[MOST], results[MOST], other[MOST];
    int vectors = 0;
    for (int i = 0; i < MOST; i++) values[i] = uniform() * (i % 2 ? 10 : 1);
    for (int isa = 0; isa < ISAS; isa++) {
        if (!frnn_has_isa(all_isas[isa])) continue;
        EXPECT(FRNN_OK, frnn_set_isa(all_isas[isa]));
        for (int64_t n = MOST; n > 0; n--) {
            const int64_t shape[3] = {1, 1, n};
            array x = array_new(dtype, shape, BATCH_FIRST), y = array_new(dtype, shape, BATCH_FIRST);
            array_put(&x, values + MOST - n);
            EXPECT(FRNN_OK, frnn_map(function, dtype, n, x.data, y.data));
            EXPECT(FRNN_OK, frnn_map(function, dtype, n, x.data, x.data));
            array_end(&y, results, "y");
            array_end(&x, other, "x");
            CHECK(memcmp(results, other, (size_t)n * sizeof(double)) == 0, "in place: other bits");
            if (n == MOST && (IS_GENERIC(all_isas[isa]) || !vectors++))
                memcpy(expected, results, sizeof expected);
            CHECK(memcmp(results, expected + MOST - n, (size_t)n * sizeof(double)) == 0,
                  "%s, %d values: other bits", all_isas[isa], (int)n);
        }
        for (int i = 0; i < MOST; i++) {
            const double right = apply(function, values[i]);
            CHECK(fabs(expected[i] - right)
                      <= 4 * fabs(right) * (dtype == FRNN_F32 ? FLT_EPSILON : DBL_EPSILON),
                  "%s: f(%g) is %g instead of %g", all_isas[isa], values[i], expected[i], right);
        }
    }
    float one[1] = {0};
    EXPECT(FRNN_OK, frnn_map(function, dtype, 0, NULL, NULL));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_map(function, dtype, -1, one, one));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_map(function, dtype, 1, NULL, one));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_map(function, dtype, 1, one, NULL));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_map(FRNN_OWN, dtype, 1, one, one));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_map((frnn_function)6, dtype, 1, one, one));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_map(function, (frnn_dtype)2, 1, one, one));
}

int main(void) {
    check_sizes();
    check_weights();
    check_calls();
    check_failing_provider();
    check_machine();
    check_products();
    for (int function = FRNN_TANH; function <= FRNN_IDENTITY; function++)
        for (int dtype = 0; dtype < 2; dtype++) check_map((frnn_function)function, (frnn_dtype)dtype);
    return report("test_api");
}
