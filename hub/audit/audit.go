// Package audit records who did what: an audit.k8s.io/v1 Event for each stage of each request that the operator's policy names, as a
// line of JSON in a file.
//
//	request ─► Begin (policy: level, stages) ─► RequestReceived ─► … ─► Done ─► ResponseComplete ─┐
//	                                                                      queue, 8 MiB ◄──────────┘
//	                                                                        └─► Run ─► file, rotated by size and age
//
// It is off unless there is a policy, and then costs a nil check a request. A request waits for room in the queue for a second at most;
// what finds none is dropped, and the hub's log and metrics say how much. The file has what the policy asks for: bodies of Secrets and tokens too,
// if it asks for those.
package audit

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	policies "k8s.io/apiserver/pkg/audit"

	"petrel.dev/petrel/hub/auth"
)

// Config is what an operator chooses. The zero value means that nothing is recorded.
type Config struct {
	PolicyFile string // an audit.k8s.io/v1 Policy, YAML or JSON
	Path       string // the log's file; "-" is standard output
	MaxSize    int64  // bytes after which the file is replaced by a new one; 0: 100 MiB
	MaxBackups int    // how many replaced files are kept; 0: all
	MaxAge     int    // days after which a replaced file is removed; 0: never
}

// Log records requests. All methods of a nil Log do nothing. It is safe for concurrent use.
type Log struct {
	policy policies.PolicyRuleEvaluator // never nil; immutable
	sink   *sink                        // never nil
}

// Open reads the policy and opens the file; nil without a policy.
func Open(cfg Config, log *slog.Logger) (*Log, error) {
	switch {
	case cfg.PolicyFile == "" && cfg.Path == "":
		return nil, nil
	case cfg.PolicyFile == "":
		return nil, fmt.Errorf("--audit-log-path %s: nothing is recorded without a policy: give --audit-policy-file", cfg.Path)
	case cfg.Path == "":
		return nil, fmt.Errorf("--audit-policy-file %s: there is no file to record to: give --audit-log-path, or - for standard output", cfg.PolicyFile)
	}
	policy, err := readPolicy(cfg.PolicyFile)
	if err != nil {
		return nil, fmt.Errorf("--audit-policy-file: %w", err)
	}
	sink, err := openSink(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("--audit-log-path: %w", err)
	}
	return &Log{policy: policy, sink: sink}, nil
}

// Run writes until ctx ends, and then what is still in the queue.
func (l *Log) Run(ctx context.Context) error {
	if l == nil {
		<-ctx.Done()
		return nil
	}
	return l.sink.run(ctx)
}

// Request is one request as it is recorded. All methods of a nil Request do nothing: the policy does not ask for it. It is owned by the
// request's goroutine, but for its annotations.
type Request struct {
	log   *Log
	event auditv1.Event
	level auditinternal.Level
	omit  []auditinternal.Stage // stages that are not recorded
	// omitManagedFields leaves metadata.managedFields out of bodies.
	omitManagedFields bool
	started           bool // a long request's answer has begun
	ended             bool

	mu          sync.Mutex
	annotations map[string]string // guarded by mu; no key goes or changes
	annotated   int               // bytes of annotations; guarded by mu
}

// auditIDHeader carries an id that a client, or a proxy before the hub, has chosen; the answer has it too. Upstream's own.
const (
	auditIDHeader   = "Audit-ID"
	maxAuditID      = 64   // bytes
	maxUserAgent    = 1024 // bytes
	annotationAllow = "authorization.k8s.io/decision"
	annotationWhy   = "authorization.k8s.io/reason"
)

// Begin begins to record a request of u, and sets the answer's Audit-ID. It returns nil when the policy does not ask for the request.
func (l *Log) Begin(w http.ResponseWriter, r *http.Request, received time.Time, u auth.User, a auth.Attributes) *Request {
	if l == nil {
		return nil
	}
	rule := l.policy.EvaluatePolicyRule(record(u, a))
	l.sink.counts.level(rule.Level).Add(1)
	if rule.Level == auditinternal.LevelNone {
		return nil
	}
	q := &Request{log: l, level: rule.Level, omit: rule.OmitStages, omitManagedFields: rule.OmitManagedFields}
	id := r.Header.Get(auditIDHeader)
	if id == "" || len(id) > maxAuditID {
		id = uuid.NewString()
	}
	w.Header().Set(auditIDHeader, id)
	agent := r.UserAgent()
	if len(agent) > maxUserAgent {
		agent = agent[:maxUserAgent] + "...TRUNCATED"
	}
	q.event = auditv1.Event{
		TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: auditv1.SchemeGroupVersion.String()},
		Level:    auditv1.Level(rule.Level), AuditID: types.UID(id), RequestURI: r.URL.RequestURI(), Verb: a.Verb, UserAgent: agent,
		User: userInfo(u), RequestReceivedTimestamp: metav1.NewMicroTime(received),
	}
	for _, ip := range utilnet.SourceIPs(r) {
		q.event.SourceIPs = append(q.event.SourceIPs, ip.String())
	}
	if a.Resource {
		q.event.ObjectRef = &auditv1.ObjectReference{
			Resource: a.Plural, Namespace: a.Namespace, Name: a.Name, APIGroup: a.APIGroup, APIVersion: a.APIVersion, Subresource: a.Subresource,
		}
	}
	q.emit(auditinternal.StageRequestReceived, received)
	return q
}

func userInfo(u auth.User) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for k, v := range u.Extra {
		if out.Extra == nil {
			out.Extra = make(map[string]authenticationv1.ExtraValue, len(u.Extra))
		}
		out.Extra[k] = v
	}
	return out
}

// Impersonate notes whom the request is treated as a request of; its user stays who sent it.
func (q *Request) Impersonate(u auth.User) {
	if q == nil {
		return
	}
	info := userInfo(u)
	q.event.ImpersonatedUser = &info
}

// Decide notes whether the request was allowed, and why.
func (q *Request) Decide(allowed bool, reason string) {
	if q == nil {
		return
	}
	decision := "forbid"
	if allowed {
		decision = "allow"
	}
	q.annotate(annotationAllow, decision)
	q.annotate(annotationWhy, reason)
}

// Refuse records a request whose credentials were refused, and nothing else of it.
func (l *Log) Refuse(w http.ResponseWriter, r *http.Request, received time.Time, a auth.Attributes) {
	q := l.Begin(w, r, received, auth.User{}, a)
	if q == nil {
		return
	}
	attempted := "no credentials"
	switch {
	case r.Header.Get("Authorization") != "":
		attempted = "bearer"
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		attempted = "x509"
	}
	q.event.ResponseStatus = &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnauthorized, Reason: metav1.StatusReasonUnauthorized, Message: "Authentication failed, attempted: " + attempted,
	}
	q.emit(auditinternal.StageResponseStarted, time.Now())
}

// Fail notes the Status that the request is answered with.
func (q *Request) Fail(s *metav1.Status) {
	if q != nil {
		q.event.ResponseStatus = &metav1.Status{Status: s.Status, Message: s.Message, Reason: s.Reason, Details: s.Details, Code: s.Code}
	}
}

// Start records that the answer of a long request has begun.
func (q *Request) Start(code int) {
	if q == nil || q.started {
		return
	}
	q.started = true
	q.setCode(code)
	q.emit(auditinternal.StageResponseStarted, time.Now())
}

// Done records the end of the request; panicked is what it panicked with, nil when it did not.
func (q *Request) Done(code int, panicked any) {
	if q == nil || q.ended {
		return
	}
	q.ended = true
	if panicked != nil {
		q.event.ResponseStatus = &metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
			Message: fmt.Sprintf("APIServer panic'd: %v", panicked),
		}
		q.emit(auditinternal.StagePanic, time.Now())
		return
	}
	q.setCode(code)
	q.emit(auditinternal.StageResponseComplete, time.Now())
}

func (q *Request) setCode(code int) {
	if code == 0 {
		code = http.StatusOK
	}
	if q.event.ResponseStatus == nil {
		q.event.ResponseStatus = &metav1.Status{}
	}
	q.event.ResponseStatus.Code = int32(code)
}

// emit records the event as of a stage, unless the policy leaves that out.
func (q *Request) emit(stage auditinternal.Stage, at time.Time) {
	if slices.Contains(q.omit, stage) {
		return
	}
	q.event.Stage, q.event.StageTimestamp = auditv1.Stage(stage), metav1.NewMicroTime(at)
	q.mu.Lock()
	q.event.Annotations = maps.Clone(q.annotations) // recording waits for room, and others annotate meanwhile
	q.mu.Unlock()
	q.log.sink.record(&q.event)
}
