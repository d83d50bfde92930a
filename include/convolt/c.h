/* Inference from C: a trained network answers pictures. C99, and C++.

   Every function that can fail returns a convolt_status and leaves one sentence at convolt_last_error(). No exception
   crosses this interface. A predictor may be used by several threads at once; their calls take turns. */
#ifndef CONVOLT_C_H
#define CONVOLT_C_H

#include <stddef.h>

#include "convolt/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The exit codes of the program. */
typedef enum convolt_status {
  CONVOLT_OK = 0,           /* it worked */
  CONVOLT_FAILURE = 1,      /* none of those below */
  CONVOLT_USAGE = 2,        /* a call that makes no sense */
  CONVOLT_DATA = 3,         /* a checkpoint or a picture that cannot be used */
  CONVOLT_DEVICE = 4,       /* no such device, or it failed */
  CONVOLT_OUT_OF_MEMORY = 5 /* of the device or of the host */
} convolt_status;

/* CONVOLT_VERSION of the library that is linked. */
const char* convolt_version(void);

/* A network with its weights on a device. */
typedef struct convolt_predictor convolt_predictor;

/* All zero: the defaults. */
typedef struct convolt_options {
  const char* device; /* "cpu", "cuda", "cuda:1"; NULL: CUDA where it can be used, else the CPU */
  const char* dtype;  /* of activations: "f32", "bf16" or "f16"; NULL: "f32" */
  int batch;          /* pictures that pass through the network together; 0: 16 */
  int workers;        /* decode threads; 0: 2 */
  int threads;        /* compute threads on the CPU; 0: all cores */
  int views;          /* of which each picture's logits are the mean: 1, 2, 5, 6 or 10, as EvalOptions'; 0: 1 */
  int logits;         /* not 0: the outputs of the network, where else probabilities are made of them */
} convolt_options;

/* How the colours of a raw pixel follow each other. */
typedef enum convolt_order { CONVOLT_RGB = 0, CONVOLT_BGR = 1 /* OpenCV's */ } convolt_order;

/* A picture in memory: an encoded file (JPEG, PNG, GIF, BMP, WebP, TIFF, PNM) when `height` is 0, else raw pixels, u8
   [height, width, channels]. Read during the call alone. Begin it all zero. */
typedef struct convolt_picture {
  const void* bytes;   /* the file, or the pixels */
  size_t size;         /* of `bytes` */
  int height;          /* of raw pixels; 0 for a file */
  int width;           /* of raw pixels */
  int channels;        /* of raw pixels: 1 (grey), 3, or 4, of which the last is left out */
  convolt_order order; /* of raw pixels in colour */
  size_t stride;       /* of raw pixels: bytes from one row to the next; 0: width * channels */
} convolt_picture;

/* Loads a checkpoint of `convolt train` (or save_checkpoint()) and stores the predictor at `predictor`; on failure that
   is NULL. `options` may be NULL. The caller frees it with convolt_close(). */
convolt_status convolt_open(const char* checkpoint, const convolt_options* options, convolt_predictor** predictor);
/* NULL is allowed. No call on the predictor may still be running. */
void convolt_close(convolt_predictor* predictor);

/* Outputs of the network; 0 for NULL. */
size_t convolt_class_count(const convolt_predictor* predictor);
/* What a class is called, UTF-8, good until convolt_close(); NULL for one without a name or out of range. */
const char* convolt_class_name(const convolt_predictor* predictor, size_t class_index);
/* Height, width and channels of what the network reads once pictures of any size are made to fit; for callers who want
   to know. Each pointer may be NULL. */
convolt_status convolt_input_size(const convolt_predictor* predictor, int* height, int* width, int* channels);

/* The class probabilities (softmax), or the logits where convolt_options asked for them, of `count` pictures into
   `probabilities`, float [count, class count]. A picture that cannot be read, or whose outputs are not finite, gets NaN
   in its row and the others their answers; the status is then CONVOLT_DATA and the error names the first of them. After
   any other failure `probabilities` holds nothing of use. */
convolt_status convolt_predict(convolt_predictor* predictor, const convolt_picture* pictures, size_t count,
                               float* probabilities);
/* The same for picture files. */
convolt_status convolt_predict_files(convolt_predictor* predictor, const char* const* paths, size_t count,
                                     float* probabilities);

/* What the last failure on the calling thread was, cut off after 1023 bytes; "" before the first. Good until the next
   failure on this thread. */
const char* convolt_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
