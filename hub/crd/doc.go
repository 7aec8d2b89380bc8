// Package crd turns CustomResourceDefinitions into served kinds.
//
//	CustomResourceDefinition ─► Controller ─► conditions, accepted names ─► status
//	                                │
//	                                └► definition: a resource.Kind for each version ─► resource.Kinds
//	                                        │
//	                                        └► schemas (structural) and conversion, made when an object needs them
//
// The controller follows definitions without their schemas, which are large: a schema is read from the store and compiled when the
// first object needs it, and forgotten again. So a hub pays for the definitions that are in use.
//
// A kind is served before its definition is said to be established, and at the start of the hub before any request is answered
// (Load). A definition that is deleted loses its objects first; then its kinds are no longer served.
package crd
