/* Settings for programs that link the device directly (unit tests, tools) instead of being preloaded. */
#pragma once

#include "softefa/settings.h"

namespace softefa::dev {

/// Before the first context is opened; otherwise the environment decides. False while contexts are open.
bool configure(const settings &wanted) noexcept;
/// What is in force.
const settings &settings_in_force() noexcept;

} // namespace softefa::dev
