/* The C interface, from C99. */
#include "convolt/c.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int write_checkpoint(const char* path);

static int failures = 0;

#define EXPECT(condition)                                                                                            \
  do {                                                                                                               \
    if (!(condition)) {                                                                                              \
      ++failures;                                                                                                    \
      fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition, convolt_last_error()); \
    }                                                                                                                \
  } while (0)

static const convolt_options on_cpu = {"cpu", "f32", 2, 1, 1, 0, 0};

static int best(const float* row) {
  int k, largest = 0;
  for (k = 1; k < 4; ++k)
    if (row[k] > row[largest]) largest = k;
  return largest;
}

static void what_it_knows(const convolt_predictor* p) {
  int height = 0, width = 0, channels = 0;
  EXPECT(convolt_class_count(p) == 4);
  EXPECT(strcmp(convolt_class_name(p, 1), "upper right") == 0);
  EXPECT(convolt_class_name(p, 3) == NULL);
  EXPECT(convolt_class_name(p, 99) == NULL);
  EXPECT(convolt_input_size(p, &height, &width, &channels) == CONVOLT_OK);
  EXPECT(height == 2 && width == 2 && channels == 1);
  EXPECT(convolt_input_size(p, NULL, NULL, &channels) == CONVOLT_OK);
}

static void pictures_in_memory(convolt_predictor* p) {
  static const unsigned char quarters[5][4] = {
      {255, 0, 0, 0}, {0, 255, 0, 0}, {0, 0, 255, 0}, {0, 0, 0, 255}, {0, 255, 0, 0}};
  static const char encoded[] = "P5 2 2 255\n\0\0\xff";
  convolt_picture pictures[6];
  float probabilities[6 * 4];
  int i;
  for (i = 0; i < 5; ++i) {
    memset(&pictures[i], 0, sizeof pictures[i]);
    pictures[i].bytes = quarters[i];
    pictures[i].size = 4;
    pictures[i].height = pictures[i].width = 2;
    pictures[i].channels = 1;
  }
  memset(&pictures[5], 0, sizeof pictures[5]);
  pictures[5].bytes = encoded;
  pictures[5].size = sizeof encoded; /* with the 0 at its end: the fourth pixel */
  EXPECT(convolt_predict(p, pictures, 6, probabilities) == CONVOLT_OK);
  for (i = 0; i < 6; ++i) EXPECT(best(probabilities + 4 * i) == (i < 4 ? i : i == 4 ? 1 : 2));
  EXPECT(fabs(probabilities[0] + probabilities[1] + probabilities[2] + probabilities[3] - 1) < 1e-5);
  EXPECT(probabilities[0] > 0.99);

  pictures[1].size = 3;
  EXPECT(convolt_predict(p, pictures, 3, probabilities) == CONVOLT_DATA);
  EXPECT(strncmp(convolt_last_error(), "picture 1: ", 11) == 0);
  EXPECT(best(probabilities) == 0 && isnan(probabilities[4]) && best(probabilities + 8) == 2);
  EXPECT(convolt_predict(p, NULL, 0, NULL) == CONVOLT_OK);
  EXPECT(convolt_predict(p, pictures, (size_t)-1, probabilities) == CONVOLT_USAGE);
}

/* As OpenCV and others hold them: rows apart, blue first, four channels. All of a pixel's channels are alike but in the
   quarter that is looked for: grey of (255, 0, 0) is 76, of (0, 0, 255) 29. */
static void pictures_of_others(convolt_predictor* p) {
  unsigned char apart[2][8] = {{0, 255, 9, 9, 9, 9, 9, 9}, {0, 0, 9, 9, 9, 9, 9, 9}};
  unsigned char four[2][2][4] = {{{255, 0, 0, 7}, {0, 0, 255, 7}}, {{0, 0, 0, 7}, {0, 0, 0, 7}}};
  convolt_picture pictures[4];
  float probabilities[4 * 4];
  int i;
  memset(pictures, 0, sizeof pictures);
  for (i = 0; i < 4; ++i) pictures[i].height = pictures[i].width = 2;
  pictures[0].bytes = apart;
  pictures[0].size = 10; /* the last row ends with its pixels */
  pictures[0].channels = 1;
  pictures[0].stride = 8;
  for (i = 1; i < 3; ++i) {
    pictures[i].bytes = four;
    pictures[i].size = sizeof four;
    pictures[i].channels = 4;
    pictures[i].order = i == 1 ? CONVOLT_RGB : CONVOLT_BGR;
  }
  EXPECT(convolt_predict(p, pictures, 3, probabilities) == CONVOLT_OK);
  EXPECT(best(probabilities) == 1);
  EXPECT(best(probabilities + 4) == 0 && best(probabilities + 8) == 1);
  pictures[0].size = 9;
  EXPECT(convolt_predict(p, pictures, 1, probabilities) == CONVOLT_DATA);
  EXPECT(strstr(convolt_last_error(), "picture 0: 2 rows of 2 bytes, 8 apart, do not fit in 9 bytes") != NULL);
  pictures[0].size = 10;
  pictures[0].stride = 1;
  EXPECT(convolt_predict(p, pictures, 1, probabilities) == CONVOLT_DATA);
  pictures[0].stride = (size_t)-1;
  EXPECT(convolt_predict(p, pictures, 1, probabilities) == CONVOLT_DATA);
  pictures[1].channels = 2;
  EXPECT(convolt_predict(p, pictures + 1, 1, probabilities) == CONVOLT_DATA);
  EXPECT(strstr(convolt_last_error(), "expected raw pixels of 1, 3 or 4 channels") != NULL);
  pictures[1].channels = 5;
  pictures[1].order = CONVOLT_BGR;
  EXPECT(convolt_predict(p, pictures + 1, 1, probabilities) == CONVOLT_DATA);
}

static void pictures_in_files(convolt_predictor* p, const char* folder) {
  char path[1024];
  const char* paths[2];
  float probabilities[8];
  FILE* file;
  snprintf(path, sizeof path, "%s/c_test.pgm", folder);
  file = fopen(path, "wb");
  EXPECT(file != NULL && fwrite("P5 2 2 255\n\0\xff\0\0", 1, 15, file) == 15);
  if (file != NULL) fclose(file);
  paths[0] = path;
  paths[1] = "/nowhere.jpg";
  EXPECT(convolt_predict_files(p, paths, 1, probabilities) == CONVOLT_OK);
  EXPECT(best(probabilities) == 1);
  EXPECT(convolt_predict_files(p, paths, 2, probabilities) == CONVOLT_DATA);
  EXPECT(strncmp(convolt_last_error(), "/nowhere.jpg: cannot be opened", 30) == 0);
  remove(path);
}

/* Of the left picture the right one is the mirror image, so that two views know no difference. */
static void logits_of_views(const char* checkpoint) {
  static const unsigned char left[4] = {255, 0, 0, 0};
  convolt_options options = on_cpu;
  convolt_predictor* p = NULL;
  convolt_picture picture;
  float one[4], two[4], probabilities[4], sum = 0;
  int k;
  memset(&picture, 0, sizeof picture);
  picture.bytes = left;
  picture.size = 4;
  picture.height = picture.width = 2;
  picture.channels = 1;
  for (k = 0; k < 3; ++k) {
    options.logits = k < 2;
    options.views = k == 0 ? 0 : k == 1 ? 2 : 1;
    EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_OK);
    EXPECT(convolt_predict(p, &picture, 1, k == 0 ? one : k == 1 ? two : probabilities) == CONVOLT_OK);
    convolt_close(p);
  }
  for (k = 0; k < 4; ++k) sum += expf(one[k]);
  EXPECT(fabs(sum - 1) > 0.5); /* no probabilities */
  for (k = 0; k < 4; ++k) EXPECT(fabs(expf(one[k]) / sum - probabilities[k]) < 1e-5);
  EXPECT(fabs(one[0] - one[1]) > 1 && fabs(two[0] - two[1]) < 1e-4);
  options.views = 3;
  EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_USAGE);
}

static void too_many_threads(const char* checkpoint) {
  convolt_predictor* p = NULL;
  convolt_options options = on_cpu;
  options.threads = 100000;
  EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_USAGE);
  options.threads = 1;
  options.workers = -2;
  EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_USAGE);
}

static void errors(const char* checkpoint) {
  convolt_predictor* p = (convolt_predictor*)&failures;
  convolt_options options = on_cpu;
  float probabilities[4];
  EXPECT(convolt_open("/nowhere.safetensors", &on_cpu, &p) == CONVOLT_DATA);
  EXPECT(p == NULL);
  EXPECT(strstr(convolt_last_error(), "/nowhere.safetensors") != NULL);
  EXPECT(convolt_open(__FILE__, &on_cpu, &p) == CONVOLT_DATA); /* no checkpoint */
  options.device = "abacus";
  EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_USAGE);
  EXPECT(strstr(convolt_last_error(), "abacus") != NULL);
  options = on_cpu;
  options.dtype = "i32";
  EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_USAGE);
  EXPECT(strstr(convolt_last_error(), "expected f32, bf16 or f16") != NULL);
  options = on_cpu;
  options.batch = -1;
  EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_USAGE);
  options = on_cpu;
  options.device = "cuda:99";
  EXPECT(convolt_open(checkpoint, &options, &p) == CONVOLT_DEVICE);
  EXPECT(convolt_open(NULL, NULL, &p) == CONVOLT_USAGE);
  EXPECT(convolt_open(checkpoint, NULL, NULL) == CONVOLT_USAGE);
  EXPECT(convolt_predict(NULL, NULL, 1, probabilities) == CONVOLT_USAGE);
  EXPECT(convolt_class_count(NULL) == 0);
  convolt_close(NULL);
  logits_of_views(checkpoint);
  too_many_threads(checkpoint);
  EXPECT(strcmp(convolt_version(), CONVOLT_VERSION) == 0);
}

int main(int argc, char** argv) {
  convolt_predictor* p = NULL;
  char checkpoint[1024];
  const char* folder = argc > 1 ? argv[1] : ".";
  snprintf(checkpoint, sizeof checkpoint, "%s/c_test.safetensors", folder);
  EXPECT(strcmp(convolt_last_error(), "") == 0);
  EXPECT(write_checkpoint(checkpoint) == 0);
  EXPECT(convolt_open(checkpoint, &on_cpu, &p) == CONVOLT_OK);
  if (p != NULL) {
    what_it_knows(p);
    pictures_in_memory(p);
    pictures_of_others(p);
    pictures_in_files(p, folder);
    convolt_close(p);
  }
  errors(checkpoint);
  remove(checkpoint);
  return failures > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
