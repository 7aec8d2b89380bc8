// Package discovery describes what is served, as of one generation of the kinds: which groups, versions, kinds and verbs. Plain
// documents are small and built for each request; the aggregated ones, which kubectl requests most, are kept. The package knows
// no HTTP beyond the header that chooses between them.
package discovery
