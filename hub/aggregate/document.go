package aggregate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"petrel.dev/petrel/hub/auth"
)

// maxDocument bounds the OpenAPI document of one server, in bytes: those of the hub's own kinds have less.
const maxDocument = 4 << 20

// documentReader is who asks for documents, as on Kubernetes: a user without rights of its own. What everybody may read is enough.
var documentReader = auth.User{Name: "system:aggregator"}

// ErrNoDocument is the error of a server that has no OpenAPI document of version 2, which it need not have.
var ErrNoDocument = errors.New("the server has no OpenAPI document of version 2")

// Document asks the server of an APIService for its OpenAPI document of version 2, in JSON, and the document's ETag. have is the ETag
// of the document that the caller has, "" for none: when that is still the server's, doc is nil.
func (a *Aggregator) Document(ctx context.Context, svc *apiregistrationv1.APIService, have string) (doc []byte, etag string, err error) {
	transport, err := a.transport(svc, false)
	if err != nil {
		return nil, "", err
	}
	u := "https://" + hostOf(svc) + "/openapi/v2"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "application/json")
	if have != "" {
		req.Header.Set("If-None-Match", have)
	}
	setUser(req.Header, documentReader)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", u, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && have != "":
		return nil, have, nil
	case resp.StatusCode == http.StatusNotFound:
		return nil, "", ErrNoDocument
	case resp.StatusCode != http.StatusOK:
		return nil, "", fmt.Errorf("get %s: the server answered %s", u, resp.Status)
	}
	if doc, err = readDocument(resp.Body, maxDocument); err != nil {
		return nil, "", fmt.Errorf("get %s: %w", u, err)
	}
	return doc, resp.Header.Get("ETag"), nil
}

// readDocument reads a document of at most limit bytes; more is an error.
func readDocument(body io.Reader, limit int64) ([]byte, error) {
	doc, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(doc)) > limit {
		return nil, fmt.Errorf("the document has more than %d bytes", limit)
	}
	return doc, err
}
