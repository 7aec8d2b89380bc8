package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/auth"
)

// maxAnswer bounds what Get reads, in bytes.
const maxAnswer = 8 << 20

// Get reads a path below /apis/GROUP/VERSION/ as a user of the hub's own, in JSON. served is false when no APIService has the
// version; the error is the server's Status, or that it cannot be used.
func (a *Aggregator) Get(ctx context.Context, user auth.User, gv schema.GroupVersion, path string, query url.Values) (body []byte, served bool, err error) {
	svc, ok := a.Remote(gv)
	if !ok {
		return nil, false, nil
	}
	if !Available(svc) {
		return nil, true, apierrors.NewServiceUnavailable("the server of APIService " + svc.Name + " is not available: its condition Available says why")
	}
	transport, err := a.transport(svc, false)
	if err != nil {
		return nil, true, err
	}
	u := "https://" + hostOf(svc) + "/apis/" + gv.String() + "/" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	// The server may be a Service's pod: the connection is made as the user, too.
	req, err := http.NewRequestWithContext(auth.WithUser(ctx, user), http.MethodGet, u, nil)
	if err != nil {
		return nil, true, err
	}
	req.Header.Set("Accept", "application/json")
	setUser(req.Header, user)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, true, fmt.Errorf("get %s: %w", u, err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err == nil && len(body) > maxAnswer {
		err = errors.New("the answer is larger than 8 MiB")
	}
	if err != nil {
		return nil, true, fmt.Errorf("get %s: %w", u, err)
	}
	if resp.StatusCode == http.StatusOK {
		return body, true, nil
	}
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Status == metav1.StatusFailure {
		return nil, true, &apierrors.StatusError{ErrStatus: status}
	}
	return nil, true, fmt.Errorf("get %s: the server answered %s", u, resp.Status)
}
