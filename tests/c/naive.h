// The cells, their variants and their gradients in plain loops over doubles: what the kernels must agree with.
#ifndef NAIVE_H
#define NAIVE_H

#include "harness.h"

#include <math.h>

// What goes in and what comes out, all (n0, n1, n2), dense and batch first. Weights and their gradients stand in
// the order of frnn_weight.
// clang-format off
enum {
    // In; all but x and the weights may be absent, of them the biases too.
    X, H0, C0, W_IH, W_HH, B_IH, B_HH, W_HR, W_CH, LN_IH, LN_HH, LN_C, DY, DH_N, DC_N,
    // Out.
    Y, H_N, C_N, DX, DH0, DC0, DW_IH, DW_HH, DB_IH, DB_HH, DW_HR, DW_CH, DLN_IH, DLN_HH, DLN_C,
    FLOW,
    ALL
};
static const char *const names[ALL] = {
    "x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "w_ch", "ln_ih", "ln_hh", "ln_c", "dy", "dh_n", "dc_n",
    "y", "h_n", "c_n", "dx", "dh0", "dc0", "dw_ih", "dw_hh", "db_ih", "db_hh", "dw_hr", "dw_ch", "dln_ih", "dln_hh",
    "dln_c", "flow",
};
// clang-format on
#define OUTPUTS Y
#define BIT(which) (1u << (which))

typedef struct {
    frnn_layer layer;
    int64_t I, H, P, B, T; // the layer's sizes, and the batch's
    const int64_t *lengths;
    int reverse;
    uint64_t seed;   // of masks
    double *of[ALL]; // NULL: absent
} problem;

static inline int has_c(frnn_cell cell) {
    return cell == FRNN_LSTM || cell == FRNN_LSTM_INPUT || cell == FRNN_LSTM_FORGET;
}
static inline int is_plain(const frnn_layer *l) {
    return !l->proj_size && !l->gate_activation && !l->state_activation && !(l->clip > 0) && !l->peephole
        && !l->layer_norm && !(l->zoneout_h > 0) && !(l->zoneout_c > 0) && !(l->recurrent_dropout > 0);
}
static inline int has_masks(const frnn_layer *l) {
    return l->zoneout_h > 0 || l->zoneout_c > 0 || l->recurrent_dropout > 0;
}

static inline int is_c(int which) { return which == C0 || which == C_N || which == DC_N || which == DC0; }
static inline int is_weight(int which) { return which >= W_IH && which <= LN_C; }

// All zeros for what the layer does not have.
static inline int64_t shape_of(const problem *p, int which, int64_t n[3]) {
    n[0] = p->B, n[1] = 1, n[2] = is_c(which) ? p->H : p->P; // a state's, but for what follows
    if (which == Y || which == DY) n[1] = p->T;
    if (which == X || which == DX) n[1] = p->T, n[2] = p->I;
    if (is_c(which) && !has_c(p->layer.cell)) n[0] = 0;
    if (which == FLOW) n[1] = p->T, n[2] = 1;
    if (is_weight(which) || (which >= DW_IH && which < FLOW)) {
        const int weight = which - (is_weight(which) ? W_IH : DW_IH);
        int64_t shape[2];
        const int axes = frnn_weight_shape(&p->layer, (frnn_weight)weight, shape);
        n[0] = axes != 0, n[1] = axes == 2 ? shape[0] : 1, n[2] = axes == 2 ? shape[1] : shape[0];
    }
    return n[0] * n[1] * n[2];
}

static inline int64_t count_of(const problem *p, int which) {
    int64_t n[3];
    return shape_of(p, which, n);
}

// --- Masks --------------------------------------------------------------------------------------

typedef enum { ZONEOUT_H, ZONEOUT_C, RECURRENT_DROPOUT } mask_purpose;

// Whether a unit of a row of the batch is drawn at a step, with probability p.
static inline int drawn(double p, uint64_t seed, mask_purpose purpose, int64_t row, int64_t step,
                        int64_t unit) {
    const int64_t numbers[] = {purpose, row, step};
    uint64_t key = seed;
    for (int i = 0; i < 3; i++) {
        key += 0x9E3779B97F4A7C15u * (uint64_t)(numbers[i] + 1);
        key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9u;
        key = (key ^ key >> 27) * 0x94D049BB133111EBu;
        key ^= key >> 31;
    }
    uint32_t x = (uint32_t)unit ^ (uint32_t)key;
    x = (x ^ x >> 16) * 0x21F0AAADu + (uint32_t)(key >> 32);
    x = (x ^ x >> 15) * 0x735A2D97u;
    return (x ^ x >> 15) < (uint32_t)(p * 4294967296.0);
}

// --- Functions and normalisation ----------------------------------------------------------------

typedef enum { GATE, STATE, NEW_C } passes; // the last: c' on its way to h', which clip is not for

static inline double apply(frnn_function f, double a) {
    if (f == FRNN_TANH) return tanh(a);
    if (f == FRNN_SIGMOID) return 1 / (1 + exp(-a));
    if (f == FRNN_RELU) return fmax(0, a);
    if (f == FRNN_HARD_SIGMOID) return fmax(0, fmin(1, a / 6 + 0.5));
    return a;
}

static inline frnn_function function_of(const frnn_layer *l, passes what) {
    const frnn_function given = what == GATE ? l->gate_activation : l->state_activation;
    if (given != FRNN_OWN) return given;
    return what == GATE ? FRNN_SIGMOID : l->cell == FRNN_RNN_RELU ? FRNN_RELU : FRNN_TANH;
}

static inline double act(const frnn_layer *l, passes what, double a) {
    if (l->clip > 0 && what != NEW_C) a = fmax(-l->clip, fmin(l->clip, a));
    return apply(function_of(l, what), a);
}

// The derivative where act gave y.
static inline double slope(const frnn_layer *l, passes what, double y) {
    const int clipped = l->clip > 0 && what != NEW_C;
    if (clipped && !(y > act(l, what, -l->clip) && y < act(l, what, l->clip))) return 0;
    switch (function_of(l, what)) {
    case FRNN_SIGMOID: return y * (1 - y);
    case FRNN_RELU: return y > 0;
    case FRNN_HARD_SIGMOID: return y > 0 && y < 1 ? 1.0 / 6 : 0;
    case FRNN_IDENTITY: return 1;
    default: return 1 - y * y;
    }
}

// x less its mean, times the rate that is returned, 1 / sqrt(variance + 1e-5).
static inline double normalise(int64_t n, double *x) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) x[i] -= mean, variance += x[i] * x[i] / (double)n;
    const double rate = 1 / sqrt(variance + 1e-5);
    for (int64_t i = 0; i < n; i++) x[i] *= rate;
    return rate;
}

// From the gradient of the result, `normal`, to that of what was normalised.
static inline void normalise_back(int64_t n, double *d, const double *normal, double rate) {
    double mean = 0, along = 0;
    for (int64_t i = 0; i < n; i++) mean += d[i] / (double)n, along += d[i] * normal[i] / (double)n;
    for (int64_t i = 0; i < n; i++) d[i] = rate * (d[i] - mean - normal[i] * along);
}

// What is normalised is scaled, and then a bias is added; each may be NULL.
static inline double scaled(const double *x, const double *scale, const double *bias, int64_t i) {
    return x[i] * (scale ? scale[i] : 1) + (bias ? bias[i] : 0);
}

// The gradients of scale and bias; d becomes that of x.
static inline void scaled_back(int64_t n, double *d, const double *x, const double *scale, double *dscale,
                               double *dbias) {
    for (int64_t i = 0; i < n; i++) {
        if (dbias) dbias[i] += d[i];
        if (scale) dscale[i] += d[i] * x[i], d[i] *= scale[i];
    }
}

// --- A unit at a step ---------------------------------------------------------------------------
// x and r: the input's and the state's part of its gates; v: the gates, and what else backward wants again. The
// cells with c end with c': their last gate, o, and h' are the same for all of them.

// i of an LSTM whose i and f are one gate.
static inline double coupled_i(const frnn_layer *l, const double *v) {
    return l->cell == FRNN_LSTM_INPUT ? v[0] : 1 - v[0];
}

static inline void unit_forward(const frnn_layer *l, const double *x, const double *r, double *h, double *c,
                                double *v) {
    switch (l->cell) {
    case FRNN_RNN_TANH:
    case FRNN_RNN_RELU: *h = v[0] = act(l, STATE, x[0] + r[0]); break;
    case FRNN_GRU:
    case FRNN_GRU_BEFORE:
        v[0] = act(l, GATE, x[0] + r[0]);
        v[1] = act(l, GATE, x[1] + r[1]);
        v[2] = act(l, STATE, x[2] + (l->cell == FRNN_GRU ? v[0] * r[2] : r[2]));
        v[3] = r[2];
        *h = (1 - v[1]) * v[2] + v[1] * *h;
        break;
    case FRNN_GRU_MINIMAL:
        v[0] = act(l, GATE, x[0] + r[0]);
        v[1] = act(l, STATE, x[1] + r[1]);
        *h = v[0] * v[1] + (1 - v[0]) * *h;
        break;
    case FRNN_LSTM:
        v[0] = act(l, GATE, x[0] + r[0]);
        v[1] = act(l, GATE, x[1] + r[1]);
        v[2] = act(l, STATE, x[2] + r[2]);
        *c = v[1] * *c + v[0] * v[2];
        break;
    case FRNN_LSTM_INPUT:
    case FRNN_LSTM_FORGET:
        v[0] = act(l, GATE, x[0] + r[0]);
        v[1] = act(l, STATE, x[1] + r[1]);
        *c = (1 - coupled_i(l, v)) * *c + coupled_i(l, v) * v[1];
        break;
    }
}

// h, c: what entered the step. Gives the gradients dx, dr of x and r, but that of o, and, of FRNN_GRU_BEFORE, that of
// r; dh and dc become those of h (the part that skips R) and c.
static inline void unit_backward(const frnn_layer *l, const double *v, double h, double c, double *dh,
                                 double *dc, double *dx, double *dr) {
    const double d = *dh, e = *dc;
    *dh = 0;
    switch (l->cell) {
    case FRNN_RNN_TANH:
    case FRNN_RNN_RELU: dx[0] = d * slope(l, STATE, v[0]); break;
    case FRNN_GRU:
    case FRNN_GRU_BEFORE:
        dx[2] = d * (1 - v[1]) * slope(l, STATE, v[2]);
        dx[1] = d * (h - v[2]) * slope(l, GATE, v[1]);
        dx[0] = l->cell == FRNN_GRU ? dx[2] * v[3] * slope(l, GATE, v[0]) : 0;
        *dh = d * v[1];
        break;
    case FRNN_GRU_MINIMAL:
        dx[0] = d * (v[1] - h) * slope(l, GATE, v[0]);
        dx[1] = d * v[0] * slope(l, STATE, v[1]);
        *dh = d * (1 - v[0]);
        break;
    case FRNN_LSTM:
        dx[0] = e * v[2] * slope(l, GATE, v[0]);
        dx[1] = e * c * slope(l, GATE, v[1]);
        dx[2] = e * v[0] * slope(l, STATE, v[2]);
        *dc = e * v[1];
        break;
    case FRNN_LSTM_INPUT:
    case FRNN_LSTM_FORGET:
        dx[0] = (l->cell == FRNN_LSTM_INPUT ? e : -e) * (v[1] - c) * slope(l, GATE, v[0]);
        dx[1] = e * coupled_i(l, v) * slope(l, STATE, v[1]);
        *dc = e * (1 - coupled_i(l, v));
        break;
    }
    for (int g = 0; g < frnn_gates(l->cell); g++) dr[g] = dx[g];
    if (l->cell == FRNN_GRU) dr[2] = dx[2] * v[0];
}

// --- A row of a batch ---------------------------------------------------------------------------

// One of its steps, with all that backward wants.
typedef struct {
    double *h, *c;                 // what enters it
    double *in, *late;             // what of h enters the product with R; r times that
    double *x, *r;                 // W x and R h, gate by gate, normalised where the layer wants it
    double (*v)[4];                // by unit
    double *new_c, *normal_c, *s;  // c' before zoneout, normalised, and act of that
    double *out;                   // h' before its projection
    double rate_x, rate_r, rate_c; // of the normalisations
} step_data;

// A row of the batch.
typedef struct {
    problem *p;
    int64_t b, length;
    int training;
    step_data *steps; // [length + 1]: h and c of the last are the final state
    double *values;   // of all steps
} row_data;

static inline row_data row_new(problem *p, int64_t b, int training) {
    row_data row = {.p = p, .b = b, .length = p->lengths ? p->lengths[b] : p->T, .training = training};
    const int64_t H = p->H, P = p->P, GH = frnn_gates(p->layer.cell) * H;
    const int64_t step_values = 2 * P + 2 * GH + 10 * H;
    row.steps = calloc((size_t)(row.length + 1), sizeof *row.steps);
    double *next = row.values = calloc((size_t)((row.length + 1) * step_values), sizeof *next);
    for (step_data *s = row.steps; s <= row.steps + row.length; s++) {
        s->h = next, next += P;
        s->in = next, next += P;
        s->x = next, next += GH;
        s->r = next, next += GH;
        s->v = (double(*)[4])next, next += 4 * H;
        s->c = next, next += H;
        s->late = next, next += H;
        s->new_c = next, next += H;
        s->normal_c = next, next += H;
        s->s = next, next += H;
        s->out = next, next += H;
    }
    return row;
}

// By how much a unit stays as it was.
static inline double stays(const row_data *row, mask_purpose purpose, int64_t step, int64_t unit) {
    const frnn_layer *l = &row->p->layer;
    const double part = purpose == ZONEOUT_H ? l->zoneout_h : l->zoneout_c;
    return row->training ? drawn(part, row->p->seed, purpose, row->b, step, unit) : part;
}

// What h is multiplied by before its product with R.
static inline double kept(const row_data *row, int64_t unit) {
    const double part = row->p->layer.recurrent_dropout;
    if (!row->training) return 1;
    return drawn(part, row->p->seed, RECURRENT_DROPOUT, row->b, 0, unit) ? 0 : 1 / (1 - part);
}

// The row in the caller's X and Y.
static inline int64_t time_of(const row_data *row, int64_t step) {
    return row->b * row->p->T + (row->p->reverse ? row->length - 1 - step : step);
}

// The first gate whose product with R is with r h.
static inline int64_t late_gate(const problem *p) {
    return p->layer.cell == FRNN_GRU_BEFORE ? 2 : frnn_gates(p->layer.cell);
}

static inline void step_forward(const row_data *row, int64_t step) {
    const problem *p = row->p;
    const frnn_layer *l = &p->layer;
    double *const *of = p->of;
    const int64_t I = p->I, H = p->H, P = p->P, G = frnn_gates(l->cell), t = time_of(row, step);
    step_data *const s = &row->steps[step], *const next = s + 1;
    const double *peep = of[W_CH];

    // The sums. Those of n in FRNN_GRU_BEFORE wait for r.
    for (int64_t k = 0; k < P; k++) s->in[k] = s->h[k] * kept(row, k);
    for (int64_t i = 0; i < G * H; i++)
        for (int64_t k = 0; k < I; k++) s->x[i] += of[W_IH][i * I + k] * of[X][t * I + k];
    for (int64_t i = 0; i < late_gate(p) * H; i++)
        for (int64_t k = 0; k < P; k++) s->r[i] += of[W_HH][i * P + k] * s->in[k];
    if (l->layer_norm) s->rate_x = normalise(G * H, s->x), s->rate_r = normalise(G * H, s->r);
    if (l->cell == FRNN_GRU_BEFORE) {
        for (int64_t j = 0; j < H; j++) {
            const double r = scaled(s->x, NULL, of[B_IH], j) + scaled(s->r, NULL, of[B_HH], j);
            s->late[j] = act(l, GATE, r) * s->in[j];
        }
        for (int64_t i = 2 * H; i < 3 * H; i++)
            for (int64_t k = 0; k < H; k++) s->r[i] += of[W_HH][i * H + k] * s->late[k];
    }

    // The units, then what takes all of them.
    for (int64_t j = 0; j < H; j++) {
        double x[4], r[4];
        for (int64_t g = 0; g < G; g++) {
            x[g] = scaled(s->x, of[LN_IH], of[B_IH], g * H + j);
            r[g] = scaled(s->r, of[LN_HH], of[B_HH], g * H + j);
        }
        for (int64_t g = 0; peep && g < G - 2; g++) x[g] += peep[g * H + j] * s->c[j];
        s->new_c[j] = s->c[j];
        if (!has_c(l->cell)) s->out[j] = s->h[j];
        unit_forward(l, x, r, &s->out[j], &s->new_c[j], s->v[j]);
        if (peep) x[G - 1] += peep[(G - 2) * H + j] * s->new_c[j];
        if (has_c(l->cell)) s->v[j][G - 1] = act(l, GATE, x[G - 1] + r[G - 1]);
    }
    if (has_c(l->cell)) {
        memcpy(s->normal_c, s->new_c, (size_t)H * sizeof *s->new_c);
        if (l->layer_norm) s->rate_c = normalise(H, s->normal_c);
        for (int64_t j = 0; j < H; j++) {
            s->s[j] = act(l, NEW_C, scaled(s->normal_c, of[LN_C], of[LN_C] ? of[LN_C] + H : NULL, j));
            s->out[j] = s->v[j][G - 1] * s->s[j];
            const double stay = stays(row, ZONEOUT_C, step, j);
            next->c[j] = stay * s->c[j] + (1 - stay) * s->new_c[j];
        }
    }
    for (int64_t k = 0; k < P; k++) {
        double h = of[W_HR] ? 0 : s->out[k];
        for (int64_t j = 0; of[W_HR] && j < H; j++) h += of[W_HR][k * H + j] * s->out[j];
        const double stay = stays(row, ZONEOUT_H, step, k);
        next->h[k] = of[Y][t * P + k] = stay * s->h[k] + (1 - stay) * h;
    }
}

// dh and dc, the gradients of what left the step, become those of what entered it.
static inline void step_backward(const row_data *row, int64_t step, double *dh, double *dc) {
    problem *p = row->p;
    const frnn_layer *l = &p->layer;
    double *const *of = p->of;
    const int64_t I = p->I, H = p->H, P = p->P, G = frnn_gates(l->cell), t = time_of(row, step);
    const step_data *const s = &row->steps[step];
    const double *peep = of[W_CH];
    double *values = calloc((size_t)(2 * P + (2 * G + 4) * H), sizeof *values);
    double *stayed_h = values, *through = stayed_h + P, *dx = through + P, *dr = dx + G * H;
    double *stayed_c = dr + G * H, *dout = stayed_c + H, *dnormal = dout + H, *dlate = dnormal + H;

    // h', its projection, c'.
    for (int64_t k = 0; k < P; k++) {
        if (of[DY]) dh[k] += of[DY][t * P + k];
        of[FLOW][t] += dh[k] * dh[k];
        stayed_h[k] = dh[k] * stays(row, ZONEOUT_H, step, k);
        dh[k] -= stayed_h[k];
        if (!of[W_HR]) dout[k] = dh[k];
        for (int64_t j = 0; of[W_HR] && j < H; j++) {
            dout[j] += of[W_HR][k * H + j] * dh[k];
            of[DW_HR][k * H + j] += dh[k] * s->out[j];
        }
    }
    if (has_c(l->cell)) {
        for (int64_t j = 0; j < H; j++) {
            stayed_c[j] = dc[j] * stays(row, ZONEOUT_C, step, j);
            dc[j] -= stayed_c[j];
            dx[(G - 1) * H + j] = dout[j] * s->s[j] * slope(l, GATE, s->v[j][G - 1]);
            dnormal[j] = dout[j] * s->v[j][G - 1] * slope(l, NEW_C, s->s[j]);
        }
        if (l->layer_norm) {
            scaled_back(H, dnormal, s->normal_c, of[LN_C], of[DLN_C], of[DLN_C] + H);
            normalise_back(H, dnormal, s->normal_c, s->rate_c);
        }
        for (int64_t j = 0; j < H; j++) dc[j] += dnormal[j];
    }
    // The units.
    for (int64_t j = 0; j < H; j++) {
        double dx_of[4] = {0}, dr_of[4];
        if (has_c(l->cell)) dx_of[G - 1] = dx[(G - 1) * H + j];
        if (peep) dc[j] += peep[(G - 2) * H + j] * dx_of[G - 1];
        unit_backward(l, s->v[j], has_c(l->cell) ? 0 : s->h[j], s->c[j], &dout[j], &dc[j], dx_of, dr_of);
        for (int64_t g = 0; peep && g < G - 2; g++) {
            dc[j] += peep[g * H + j] * dx_of[g];
            of[DW_CH][g * H + j] += dx_of[g] * s->c[j];
        }
        if (peep) of[DW_CH][(G - 2) * H + j] += dx_of[G - 1] * s->new_c[j];
        for (int64_t g = 0; g < G; g++) dx[g * H + j] = dx_of[g], dr[g * H + j] = dr_of[g];
        dc[j] += stayed_c[j];
    }
    if (l->cell == FRNN_GRU_BEFORE) {
        for (int64_t j = 0; j < H; j++)
            for (int64_t k = 0; k < H; k++) dlate[k] += dr[2 * H + j] * of[W_HH][(2 * H + j) * H + k];
        for (int64_t k = 0; k < H; k++) {
            dx[k] = dr[k] = dlate[k] * s->in[k] * slope(l, GATE, s->v[k][0]);
            through[k] += dlate[k] * s->v[k][0];
        }
    }
    // The sums.
    scaled_back(G * H, dx, s->x, of[LN_IH], of[DLN_IH], of[DB_IH]);
    scaled_back(G * H, dr, s->r, of[LN_HH], of[DLN_HH], of[DB_HH]);
    if (l->layer_norm) normalise_back(G * H, dx, s->x, s->rate_x), normalise_back(G * H, dr, s->r, s->rate_r);
    for (int64_t i = 0; i < G * H; i++) {
        for (int64_t k = 0; k < I; k++) {
            of[DW_IH][i * I + k] += dx[i] * of[X][t * I + k];
            of[DX][t * I + k] += dx[i] * of[W_IH][i * I + k];
        }
        const int late = i >= late_gate(p) * H;
        for (int64_t k = 0; k < P; k++) {
            of[DW_HH][i * P + k] += dr[i] * (late ? s->late[k] : s->in[k]);
            if (!late) through[k] += dr[i] * of[W_HH][i * P + k];
        }
    }
    // dout is now what skips R, of the cells where h reaches h' without it.
    for (int64_t k = 0; k < P; k++)
        dh[k] = (has_c(l->cell) ? 0 : dout[k]) + stayed_h[k] + kept(row, k) * through[k];
    free(values);
}

static inline void copy_or_zero(int64_t n, const double *from, int64_t row, double *to) {
    for (int64_t i = 0; i < n; i++) to[i] = from ? from[row * n + i] : 0;
}

static inline void naive_row(problem *p, int64_t b, int training) {
    const int64_t H = p->H, P = p->P, cH = has_c(p->layer.cell) ? H : 0;
    row_data row = row_new(p, b, training);
    const step_data *first = &row.steps[0], *last = &row.steps[row.length];
    copy_or_zero(P, p->of[H0], b, first->h), copy_or_zero(cH, p->of[C0], b, first->c);
    for (int64_t s = 0; s < row.length; s++) step_forward(&row, s);
    copy_or_zero(P, last->h, 0, p->of[H_N] + b * P), copy_or_zero(cH, last->c, 0, p->of[C_N] + b * cH);

    if (training) {
        double *dh = calloc((size_t)P, sizeof *dh), *dc = calloc((size_t)H, sizeof *dc);
        copy_or_zero(P, p->of[DH_N], b, dh), copy_or_zero(cH, p->of[DC_N], b, dc);
        for (int64_t s = row.length - 1; s >= 0; s--) step_backward(&row, s, dh, dc);
        copy_or_zero(P, dh, 0, p->of[DH0] + b * P), copy_or_zero(cH, dc, 0, p->of[DC0] + b * cH);
        free(dh), free(dc);
    }
    free(row.steps), free(row.values);
}

// Fills the outputs; without training only those of forward.
static inline void naive(problem *p, int training) {
    for (int which = OUTPUTS; which < ALL; which++)
        memset(p->of[which], 0, (size_t)count_of(p, which) * sizeof(double));
    for (int64_t b = 0; b < p->B; b++) naive_row(p, b, training);
}

#endif
