/* The tables of what is published, for publish.cc.
 *
 * Engine lock held, unless it says otherwise. tables_page() may be looked at without: it changes only where the first context comes and the last one goes.
 */
#pragma once

#include "softefa/observe/published.h"

namespace softefa::dev {

void tables_begin(observe::published *page) noexcept; ///< from here on they are kept, and records are written
observe::published *tables_end() noexcept;            ///< what was kept, null: nothing
observe::published *tables_page() noexcept;           ///< null: nothing is published
void tables_snapshot() noexcept;                      ///< brings all of them up to date; takes the lock

} // namespace softefa::dev
