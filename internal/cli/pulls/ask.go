package pulls

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"petrel.dev/petrel/internal/kube"
)

// maxAnswer bounds a node's answer, in bytes.
const maxAnswer = 1 << 20

// Get gets a path from the hub.
type Get func(ctx context.Context, path string, query url.Values, accept string) (io.ReadCloser, error)

// By asks nodes through the hub.
func By(get Get) Ask {
	return func(ctx context.Context, node string) (list []kube.ImagePull, err error) {
		body, err := get(ctx, "/api/v1/nodes/"+url.PathEscape(node)+"/proxy"+kube.PullsPath, nil, "application/json")
		if err != nil {
			return nil, err
		}
		defer body.Close()
		if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(&list); err != nil {
			return nil, fmt.Errorf("pulls of node %s: %w", node, err)
		}
		return list, nil
	}
}
