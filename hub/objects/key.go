package objects

// kindPart is the part of a key that all objects of a kind share: "/core/pods/" of "/core/pods/default/web-0".
func kindPart(key string) string {
	slashes := 0
	for i := range len(key) {
		if key[i] == '/' {
			if slashes++; slashes == 3 {
				return key[:i+1]
			}
		}
	}
	return key
}
