// Package satoken issues and verifies the tokens of ServiceAccounts, and holds the keys for it.
//
//	DATA/pki/sa.key                 signs; replaced when it is 90 days old, or by `petrel admin rotate-token-key`
//	DATA/pki/sa-retired/KEYID.pem   public halves of the keys before, which verify until their tokens have run out
//
// A token is bound to its account, and to a pod, a Secret or a node if it was asked for so: it ends with what it is bound to. A legacy
// token is the content of a Secret of type kubernetes.io/service-account-token; it does not expire, and ends with that Secret.
//
// Clocks are not trusted: a token of our own from the future is accepted, since only our clock can have gone back.
package satoken
