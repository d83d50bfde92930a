/* Links the C interface with what pkg-config says. */
#include <convolt/c.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  convolt_predictor* predictor = NULL;
  const convolt_status status = convolt_open("/nowhere.safetensors", NULL, &predictor);
  if (strcmp(convolt_version(), CONVOLT_VERSION) != 0) return 2;
  printf("%d: %s\n", (int)status, convolt_last_error());
  return status == CONVOLT_DATA && predictor == NULL ? 0 : 1;
}
