/* The templates, for one REAL. */
#include "draw.h"
#include "dots.h"
#include "orthogonal.h"
#include "random_matmul.h"
