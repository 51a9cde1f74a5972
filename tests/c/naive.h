// The cells and their gradients in plain loops over doubles: what the kernels must agree with.
#ifndef NAIVE_H
#define NAIVE_H

#include "harness.h"

#include <math.h>

// What goes in and what comes out, all (n0, n1, n2), dense and batch first.
// clang-format off
enum {
    // In; all but x and the weights may be absent.
    X, H0, C0, W_IH, W_HH, B_IH, B_HH, DY, DH_N, DC_N,
    // Out.
    Y, H_N, C_N, DX, DH0, DC0, DW_IH, DW_HH, DB_IH, DB_HH,
    ALL
};
// clang-format on
#define OUTPUTS Y
#define BIT(which) (1u << (which))
static const char *const names[ALL] = {
    "x", "h0",  "c0",  "w_ih", "w_hh", "b_ih", "b_hh",  "dy",    "dh_n",  "dc_n",
    "y", "h_n", "c_n", "dx",   "dh0",  "dc0",  "dw_ih", "dw_hh", "db_ih", "db_hh",
};

typedef struct {
    frnn_cell cell;
    int64_t I, H, B, T;
    const int64_t *lengths;
    int reverse;
    double *of[ALL]; // NULL: absent
} problem;

static inline int has_c(frnn_cell cell) {
    return cell == FRNN_LSTM || cell == FRNN_LSTM_INPUT || cell == FRNN_LSTM_FORGET;
}
static inline int is_c(int which) { return which == C0 || which == C_N || which == DC_N || which == DC0; }

static inline int64_t shape_of(const problem *p, int which, int64_t n[3]) {
    const int64_t GH = frnn_gates(p->cell) * p->H;
    const int input = which == X || which == DX || which == W_IH || which == DW_IH;
    n[0] = p->B, n[1] = 1, n[2] = input ? p->I : p->H; // a state's, but for what follows
    if (which == X || which == DX || which == Y || which == DY) n[1] = p->T;
    if (which == W_IH || which == DW_IH || which == W_HH || which == DW_HH) n[0] = 1, n[1] = GH;
    if (which == B_IH || which == DB_IH || which == B_HH || which == DB_HH) n[0] = 1, n[2] = GH;
    return n[0] * n[1] * n[2];
}

static inline int64_t count_of(const problem *p, int which) {
    int64_t n[3];
    return shape_of(p, which, n);
}

// --- A unit at a step ---------------------------------------------------------------------------
// x and r: W x + b_ih and R h + b_hh of its gates; v: what backward wants again.

static inline double sigmoid(double a) { return 1 / (1 + exp(-a)); }

static inline void unit_forward(frnn_cell cell, const double *x, const double *r, double *h, double *c,
                                double *v) {
    if (cell == FRNN_RNN_TANH) *h = v[0] = tanh(x[0] + r[0]);
    if (cell == FRNN_RNN_RELU) *h = v[0] = fmax(0, x[0] + r[0]);
    if (cell == FRNN_GRU) {
        v[0] = sigmoid(x[0] + r[0]);
        v[1] = sigmoid(x[1] + r[1]);
        v[2] = tanh(x[2] + v[0] * r[2]);
        v[3] = r[2];
        *h = (1 - v[1]) * v[2] + v[1] * *h;
    }
    if (cell == FRNN_GRU_MINIMAL) {
        v[0] = sigmoid(x[0] + r[0]);
        v[1] = tanh(x[1] + r[1]);
        *h = v[0] * v[1] + (1 - v[0]) * *h;
    }
    if (cell == FRNN_LSTM) {
        v[0] = sigmoid(x[0] + r[0]);
        v[1] = sigmoid(x[1] + r[1]);
        v[2] = tanh(x[2] + r[2]);
        v[3] = sigmoid(x[3] + r[3]);
        *c = v[1] * *c + v[0] * v[2];
        *h = v[3] * tanh(*c);
    }
    if (cell == FRNN_LSTM_INPUT || cell == FRNN_LSTM_FORGET) {
        v[0] = sigmoid(x[0] + r[0]);
        v[1] = tanh(x[1] + r[1]);
        v[2] = sigmoid(x[2] + r[2]);
        const double i = cell == FRNN_LSTM_INPUT ? v[0] : 1 - v[0];
        *c = (1 - i) * *c + i * v[1];
        *h = v[2] * tanh(*c);
    }
}

// h, c: what entered the step, next_c what left it. Gives the gradients dx, dr of x and r; dh and dc
// become those of h (the part that skips R) and c.
static inline void unit_backward(frnn_cell cell, const double *v, double h, double c, double next_c,
                                 double *dh, double *dc, double *dx, double *dr) {
    const double d = *dh;
    *dh = 0;
    if (cell == FRNN_RNN_TANH) dx[0] = d * (1 - v[0] * v[0]);
    if (cell == FRNN_RNN_RELU) dx[0] = v[0] > 0 ? d : 0;
    if (cell == FRNN_GRU) {
        dx[2] = d * (1 - v[1]) * (1 - v[2] * v[2]);
        dx[1] = d * (h - v[2]) * v[1] * (1 - v[1]);
        dx[0] = dx[2] * v[3] * v[0] * (1 - v[0]);
        *dh = d * v[1];
    }
    if (cell == FRNN_GRU_MINIMAL) {
        dx[0] = d * (v[1] - h) * v[0] * (1 - v[0]);
        dx[1] = d * v[0] * (1 - v[1] * v[1]);
        *dh = d * (1 - v[0]);
    }
    if (cell == FRNN_LSTM) {
        const double s = tanh(next_c), e = *dc + d * v[3] * (1 - s * s);
        dx[0] = e * v[2] * v[0] * (1 - v[0]);
        dx[1] = e * c * v[1] * (1 - v[1]);
        dx[2] = e * v[0] * (1 - v[2] * v[2]);
        dx[3] = d * s * v[3] * (1 - v[3]);
        *dc = e * v[1];
    }
    if (cell == FRNN_LSTM_INPUT || cell == FRNN_LSTM_FORGET) {
        const double s = tanh(next_c), e = *dc + d * v[2] * (1 - s * s);
        const double sign = cell == FRNN_LSTM_INPUT ? 1 : -1, i = cell == FRNN_LSTM_INPUT ? v[0] : 1 - v[0];
        dx[0] = sign * e * (v[1] - c) * v[0] * (1 - v[0]);
        dx[1] = e * i * (1 - v[1] * v[1]);
        dx[2] = d * s * v[2] * (1 - v[2]);
        *dc = e * (1 - i);
    }
    for (int g = 0; g < frnn_gates(cell); g++) dr[g] = dx[g];
    if (cell == FRNN_GRU) dr[2] = dx[2] * v[0];
}

// --- A row of a batch ---------------------------------------------------------------------------

static inline void naive_row(problem *p, int64_t b) {
    const int64_t I = p->I, H = p->H, T = p->T, G = frnn_gates(p->cell);
    const int64_t length = p->lengths ? p->lengths[b] : T;
    double *const *of = p->of;
    double *h = calloc((size_t)((length + 1) * H), sizeof *h),
           *c = calloc((size_t)((length + 1) * H), sizeof *c);
    double(*v)[4] = calloc((size_t)(length * H + 1), sizeof *v);
    double *dh = calloc((size_t)H, sizeof *dh), *dc = calloc((size_t)H, sizeof *dc);
    double *through = calloc((size_t)H, sizeof *through);
    for (int64_t j = 0; j < H; j++) {
        if (of[H0]) h[j] = of[H0][b * H + j];
        if (of[C0]) c[j] = of[C0][b * H + j];
        if (of[DH_N]) dh[j] = of[DH_N][b * H + j];
        if (of[DC_N]) dc[j] = of[DC_N][b * H + j];
    }
    for (int64_t s = 0; s < length; s++) {
        const int64_t t = b * T + (p->reverse ? length - 1 - s : s);
        for (int64_t j = 0; j < H; j++) {
            double x[4], r[4];
            for (int64_t g = 0; g < G; g++) {
                const int64_t i = g * H + j;
                x[g] = of[B_IH] ? of[B_IH][i] : 0;
                r[g] = of[B_HH] ? of[B_HH][i] : 0;
                for (int64_t k = 0; k < I; k++) x[g] += of[W_IH][i * I + k] * of[X][t * I + k];
                for (int64_t k = 0; k < H; k++) r[g] += of[W_HH][i * H + k] * h[s * H + k];
            }
            double *next_h = &h[(s + 1) * H + j], *next_c = &c[(s + 1) * H + j];
            *next_h = h[s * H + j];
            *next_c = c[s * H + j];
            unit_forward(p->cell, x, r, next_h, next_c, v[s * H + j]);
            of[Y][t * H + j] = *next_h;
        }
    }
    memcpy(of[H_N] + b * H, h + length * H, (size_t)H * sizeof *h);
    memcpy(of[C_N] + b * H, c + length * H, (size_t)H * sizeof *c);

    for (int64_t s = length - 1; s >= 0; s--) {
        const int64_t t = b * T + (p->reverse ? length - 1 - s : s);
        for (int64_t j = 0; j < H; j++) through[j] = 0;
        for (int64_t j = 0; j < H; j++) {
            double dx[4], dr[4];
            if (of[DY]) dh[j] += of[DY][t * H + j];
            unit_backward(p->cell, v[s * H + j], h[s * H + j], c[s * H + j], c[(s + 1) * H + j], &dh[j],
                          &dc[j], dx, dr);
            for (int64_t g = 0; g < G; g++) {
                const int64_t i = g * H + j;
                of[DB_IH][i] += dx[g];
                of[DB_HH][i] += dr[g];
                for (int64_t k = 0; k < I; k++) {
                    of[DW_IH][i * I + k] += dx[g] * of[X][t * I + k];
                    of[DX][t * I + k] += dx[g] * of[W_IH][i * I + k];
                }
                for (int64_t k = 0; k < H; k++) {
                    of[DW_HH][i * H + k] += dr[g] * h[s * H + k];
                    through[k] += dr[g] * of[W_HH][i * H + k];
                }
            }
        }
        for (int64_t j = 0; j < H; j++) dh[j] += through[j];
    }
    memcpy(of[DH0] + b * H, dh, (size_t)H * sizeof *dh);
    memcpy(of[DC0] + b * H, dc, (size_t)H * sizeof *dc);
    free(h), free(c), free(v), free(dh), free(dc), free(through);
}

// Fills the outputs.
static inline void naive(problem *p) {
    for (int which = OUTPUTS; which < ALL; which++)
        memset(p->of[which], 0, (size_t)count_of(p, which) * sizeof(double));
    for (int64_t b = 0; b < p->B; b++) naive_row(p, b);
}

#endif
