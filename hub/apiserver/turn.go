package apiserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource"
)

// turn waits until a request of user that came at began may be worked on, by its priority level. From then on it has a seat there, and no
// slot of Limits.InFlight. Streams have neither, only a budget of their own. A user who is impersonated waits as that user.
func (s *server) turn(x *exchange, place *place, user *auth.User, a auth.Attributes, began time.Time) error {
	if s.Fairness == nil || x.longRunning() && x.verb != "watch" {
		return nil
	}
	c := s.Fairness.Classify(user, &a)
	schema, level := c.UIDs()
	x.w.Header().Set(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID, schema)
	x.w.Header().Set(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID, level)
	if c.Exempt() {
		return nil
	}
	prefix := ""
	if x.t.Kind != nil && x.sub == nil {
		prefix = resource.Prefix(x.t.Kind, x.t.Namespace)
	}
	place.release()
	seat, err := s.Fairness.Enter(x.ctx, c, s.Fairness.Width(x.ctx, &a, prefix, x.query), began.Add(s.Limits.Turn))
	if err != nil {
		if apierrors.IsTooManyRequests(err) {
			s.metrics.rejected.Inc()
		}
		return err
	}
	x.seat, x.classed = seat, true
	if x.r.ContentLength != 0 {
		x.bodyUntil(time.Now().Add(s.Limits.BodyGrace)) // its client could not send while it waited
	}
	return nil
}

// collectors returns those of the configuration, and that of the priority levels.
func (c *Config) collectors() []prometheus.Collector {
	if c.Fairness == nil {
		return c.Collectors
	}
	return append(c.Collectors[:len(c.Collectors):len(c.Collectors)], c.Fairness)
}
