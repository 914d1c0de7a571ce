/* A guest as a shared object: two functions, loaded in a process of its own (docs/guest-protocol.md).
 *
 *     cc -O2 -shared -fPIC -o plain.so plain.c -lm
 *     nsa-diff run --candidate guest:./plain.so
 */
#ifndef NSA_GUEST_H
#define NSA_GUEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of these structures, and of the call. */
#define NSA_GUEST_ABI 1

/* One problem, every tensor in row-major order. Floating-point tensors are `double` where `element` is "f64" and `float`
 * otherwise: a float holds every f16 and bf16 exactly. A tensor that is absent is NULL. */
typedef struct {
    uint32_t abi;                 /* NSA_GUEST_ABI */
    uint32_t include_block_causal; /* 0 or 1 */
    int64_t batch, q_heads, kv_heads, sel_heads, seq_len, dim, value_dim, block_size, num_sel;
    int64_t sliding_window;       /* -1: no sliding output */
    const char *element;          /* "f64", "f32", "f16" or "bf16" */
    const void *q;                /* [batch, q_heads, seq_len, dim] */
    const void *k;                /* [batch, kv_heads, seq_len, dim] */
    const void *v;                /* [batch, kv_heads, seq_len, value_dim] */
    const int64_t *indices;       /* [batch, sel_heads, seq_len, num_sel] */
    const uint8_t *mask;          /* like indices, 0 or 1 */
    const void *sel_scale;        /* like indices */
    const void *d_out;            /* [batch, q_heads, seq_len, value_dim] */
    const void *d_lse;            /* [batch, q_heads, seq_len] */
    const void *d_sliding;        /* [batch, q_heads, seq_len, value_dim] */
} nsa_guest_case;

/* Where the answer goes: `double` or `float` as the inputs, filled with NaN beforehand. NULL: not asked for. */
typedef struct {
    void *out;         /* [batch, q_heads, seq_len, value_dim] */
    void *lse;         /* [batch, q_heads, seq_len] */
    void *sliding_out; /* [batch, q_heads, seq_len, value_dim] */
    void *sliding_lse; /* [batch, q_heads, seq_len] */
    void *dq;          /* [batch, q_heads, seq_len, dim] */
    void *dk;          /* [batch, kv_heads, seq_len, dim] */
    void *dv;          /* [batch, kv_heads, seq_len, value_dim] */
    void *dsel_scale;  /* like indices */
} nsa_guest_outputs;

enum { NSA_GUEST_OK = 0, NSA_GUEST_SKIP = 1, NSA_GUEST_ERROR = 2 };

/* The declaration as a JSON object: "name", "arithmetic", and perhaps "supports", "fields", "determinism". */
const char *nsa_guest_declaration(void);

/* Computes one problem. For a skip or an error, `message` (of `message_bytes` bytes) takes the reason, ended by 0. */
int nsa_guest_run(const nsa_guest_case *problem, const nsa_guest_outputs *answer, char *message, size_t message_bytes);

#ifdef __cplusplus
}
#endif

#endif
