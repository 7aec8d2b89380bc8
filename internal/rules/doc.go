// Package rules holds no code: its tests keep the house in the shape that docs/architecture.md describes. Each rule
// stands with its reason; who wants to break one changes the rule here, and says why in an ADR.
package rules
