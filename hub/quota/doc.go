// Package quota counts what the ResourceQuotas of a namespace limit. Its pure part says what one object takes and which quotas
// it belongs to; a Ledger keeps the sum for each quota, in memory, by the feed of changes.
//
//	changes of the kinds that a quota names ─► Tally: used ──────────► status (hub/control/quota)
//	                                             ▲  │
//	a write ─► Reserve(what it adds) ────────────┘  └─ used + reserved + added > hard: refused (hub/admission/quota)
//
// A write that is admitted has its share reserved under the tally's lock until the feed shows the object, or until the write has
// ended without one: writers that come at once never get more than the limit together. Nothing is stored for that, so a pod costs
// no second write, and a restart counts from what there is. A namespace without a quota has no tally.
package quota
