// What a multimodal model's text_config means where it leaves keys out.
#pragma once

#include <string>

#include "base/json.h"

namespace autoscheme {

// The text_config of published models holds only what differs from the defaults of its class in transformers. Adds the
// sizes, epsilon and theta that `text` leaves out; `type` is the model_type of the text, or that of the multimodal
// model where its text has a class of its own ("qwen2_vl"). Types that are not known here get nothing: they must say
// all.
void AddTextDefaults(const std::string& type, Json& text);

}  // namespace autoscheme
