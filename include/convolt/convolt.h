// Everything of Convolt's public face.
#pragma once

#include "convolt/augment.h"
#include "convolt/autotune.h"
#include "convolt/checkpoint.h"
#include "convolt/context.h"
#include "convolt/dataset.h"
#include "convolt/dtype.h"
#include "convolt/error.h"
#include "convolt/evaluation.h"
#include "convolt/graph.h"
#include "convolt/layers.h"
#include "convolt/loader.h"
#include "convolt/loss.h"
#include "convolt/mixing.h"
#include "convolt/models.h"
#include "convolt/network_file.h"
#include "convolt/optimizer.h"
#include "convolt/pack.h"
#include "convolt/params.h"
#include "convolt/plan.h"
#include "convolt/predictor.h"
#include "convolt/schedule.h"
#include "convolt/shape.h"
#include "convolt/step.h"
#include "convolt/synth.h"
#include "convolt/tensor.h"
#include "convolt/trainer.h"
#include "convolt/version.h"
#include "convolt/whitening.h"

// Everything of Convolt.
namespace convolt {}
