/* The random primitives for any machine that GNU C compiles for. */
#define MCV_NAME "portable"
#define MCV_TABLE mcv_portable
#include "path.h"

static int available(void) { return 1; }
