package ctrd

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"petrel.dev/petrel/edgeagent/archive"
	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/ctrd/underway"
)

// labelPinned marks images that were imported by hand: they are never collected. Other tools know the label as well.
const labelPinned = "io.cri-containerd.pinned"

// fullName is the name under which an image is kept: "busybox" is "docker.io/library/busybox:latest".
func fullName(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("%w: image name %q: %v", cruntime.ErrConfig, ref, err)
	}
	return named.String(), nil
}

func (r *Runtime) image(ctx context.Context, ref string) (client.Image, error) {
	name, err := fullName(ref)
	if err != nil {
		return nil, err
	}
	img, err := r.client.GetImage(ctx, name)
	if err != nil {
		return nil, notFound(err)
	}
	return img, nil
}

// imageID is what status.imageID says: the repository and the digest of the manifest.
func imageID(img client.Image) string {
	named, err := reference.ParseDockerRef(img.Name())
	if err != nil {
		return img.Target().Digest.String()
	}
	return named.Name() + "@" + img.Target().Digest.String()
}

func (r *Runtime) imageOf(ref string, img client.Image) cruntime.Image {
	return cruntime.Image{Ref: ref, Digest: img.Target().Digest.String(), ID: imageID(img)}
}

// Image implements podrun.Runtime.
func (r *Runtime) Image(ctx context.Context, ref string) (cruntime.Image, error) {
	return r.present(ctx, ref, toRun)
}

// present returns an image that is here, unpacked.
func (r *Runtime) present(ctx context.Context, ref string, as use) (cruntime.Image, error) {
	ctx = r.ns(ctx)
	img, err := r.image(ctx, ref)
	if err != nil {
		return cruntime.Image{}, err
	}
	if err := as.fits(ref, img.Target(), platformsOf(ctx, r.client.ContentStore(), img.Target(), maxNesting)); err != nil {
		return cruntime.Image{}, fmt.Errorf("%w: %w", cruntime.ErrNotFound, err)
	}
	// A pull that was cut off may have left the name without all that belongs to it.
	ok, _, _, _, err := images.Check(ctx, r.client.ContentStore(), img.Target(), img.Platform())
	if unpacked, e := img.IsUnpacked(ctx, r.snapshotter); e == nil && unpacked {
		return r.imageOf(ref, img), nil
	}
	if err != nil || !ok {
		return cruntime.Image{}, fmt.Errorf("%w: image %s is not complete", cruntime.ErrNotFound, ref)
	}
	if err := img.Unpack(ctx, r.snapshotter); err != nil {
		return cruntime.Image{}, fmt.Errorf("image %s: unpack: %w", ref, err)
	}
	return r.imageOf(ref, img), nil
}

// stallAfter is how long a pull may go without progress before it is given up; what has come is kept, and the next pull
// goes on from there.
const stallAfter = 2 * time.Minute

const (
	// patience is how long a registry is asked about an image that is here already. Without a link each name server, and
	// each address, would be waited for in turn, which takes a minute; offline is a normal state.
	patience = 5 * time.Second
	// stallPresent is stallAfter for an image that is here already.
	stallPresent = 20 * time.Second
)

// errNoAnswer is a registry that said nothing about an image within patience.
var errNoAnswer = fmt.Errorf("the registry did not answer within %s", patience)

// patient is a resolver that gives up when the registry has not said by then what the image is; the fetching that
// follows an answer takes as long as it needs.
type patient struct {
	remotes.Resolver
	by time.Time
}

// Resolve implements remotes.Resolver.
func (p patient) Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	asking, cancel := context.WithDeadlineCause(ctx, p.by, errNoAnswer)
	defer cancel()
	name, desc, err := p.Resolver.Resolve(asking, ref)
	if err != nil && ctx.Err() == nil && asking.Err() != nil {
		err = fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return name, desc, err
}

// Pull implements podrun.Runtime.
func (r *Runtime) Pull(ctx context.Context, ref string, creds []cruntime.Credential) (cruntime.Image, error) {
	return r.fetch(ctx, ref, toRun, creds)
}

// fetch pulls an image with one credential after another, and then without.
func (r *Runtime) fetch(ctx context.Context, ref string, as use, creds []cruntime.Credential) (cruntime.Image, error) {
	name, err := fullName(ref)
	if err != nil {
		return cruntime.Image{}, err
	}
	ctx = r.ns(ctx)
	ask := question{ref: ref, name: name, as: as, stall: stallAfter, coming: r.pulls.Begin(ref)}
	defer r.pulls.End(ask.coming)
	if _, err := r.present(ctx, ref, as); err == nil {
		ask.by, ask.stall = time.Now().Add(patience), stallPresent
	} else if err := r.spare(); err != nil {
		return cruntime.Image{}, err
	}
	var errs []error
	for _, c := range append(slices.Clone(creds), cruntime.Credential{}) {
		img, err := r.pull(ctx, ask, c)
		if err == nil {
			return r.imageOf(ref, img), nil
		}
		if e := (*cruntime.PlatformError)(nil); errors.As(err, &e) {
			return cruntime.Image{}, e
		}
		if unreachable(err) {
			return cruntime.Image{}, fmt.Errorf("%w: %w", cruntime.ErrUnreachable, err)
		}
		errs = append(errs, err)
		if ctx.Err() != nil || !refused(err) {
			break
		}
	}
	err = errs[0]
	if errdefs.IsNotFound(err) && means(err, noPlatform) {
		err = fmt.Errorf("the image has no variant for this machine (%s): %w", r.platform(), err)
	}
	return cruntime.Image{}, err
}

// question is what a registry is asked for.
type question struct {
	ref, name string         // as the pod has it, and in full
	as        use            // what the image is wanted for
	by        time.Time      // when the registry must have said what the image is; zero: no bound
	stall     time.Duration  // how long it may then go without a byte
	coming    *underway.Pull // where it is noted what the image consists of
}

func (r *Runtime) pull(ctx context.Context, q question, c cruntime.Credential) (client.Image, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alive := newWatchdog(q.stall, func() {
		cancel(fmt.Errorf("less than %d bytes in %s", leastProgress, q.stall))
	})
	defer alive.stop()
	httpClient := &http.Client{Transport: alive.watch(roomy{spare: r.spare, RoundTripper: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: 20 * time.Second}).DialContext,
		TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 60 * time.Second, IdleConnTimeout: 10 * time.Second}})}
	auth := docker.NewDockerAuthorizer(docker.WithAuthClient(httpClient), docker.WithAuthCreds(func(string) (string, string, error) {
		if c.Token != "" {
			return "", c.Token, nil
		}
		return c.Username, c.Password, nil
	}))
	var resolver remotes.Resolver = docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithAuthorizer(auth), docker.WithClient(httpClient), docker.WithPlainHTTP(r.plainHTTP))})
	if !q.by.IsZero() {
		resolver = patient{resolver, q.by}
	}
	img, err := r.client.Pull(ctx, q.name, client.WithResolver(resolver), client.WithPullUnpack, client.WithPullSnapshotter(r.snapshotter),
		client.WithMaxConcurrentDownloads(2), client.WithPullLabel(labelPulled, "yes"), client.WithImageHandlerWrapper(r.refuseForeign(q)))
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = fmt.Errorf("%w: %w", errStalled, cause)
	}
	return img, err
}

var errStalled = errors.New("the registry has stopped sending")

func (r *Runtime) plainHTTP(host string) (bool, error) {
	if slices.Contains(r.cfg.PlainHTTP, host) {
		return true, nil
	}
	return docker.MatchLocalhost(host)
}

// unreachable reports whether a registry did not answer, rather than say no. A certificate out of its time counts as no
// answer: after a power cut a board without a clock is in 1970 until the network brings the time.
func unreachable(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var timeout net.Error
	var cert x509.CertificateInvalidError
	switch {
	case errors.As(err, &cert) && cert.Reason == x509.Expired:
		return true
	case errors.As(err, &op), errors.As(err, &dns), errors.Is(err, errStalled), errors.Is(err, errNoAnswer), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	case errors.As(err, &timeout) && timeout.Timeout():
		return true
	}
	return overloaded(err)
}

func (r *Runtime) platform() string {
	return platformName()
}

// imageConfig reads how an image wants to be run.
func imageConfig(ctx context.Context, img client.Image) (ocispec.ImageConfig, error) {
	if err := describable(img.Name(), img.Target()); err != nil {
		return ocispec.ImageConfig{}, err
	}
	desc, err := img.Config(ctx)
	if err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("image %s: config: %w", img.Name(), err)
	}
	if err := describable(img.Name(), desc); err != nil {
		return ocispec.ImageConfig{}, err
	}
	b, err := content.ReadBlob(ctx, img.ContentStore(), desc)
	if err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("image %s: config: %w", img.Name(), err)
	}
	var full ocispec.Image
	if err := json.Unmarshal(b, &full); err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("image %s: config: %w", img.Name(), err)
	}
	return full.Config, nil
}

// Import reads images from an OCI layout or "docker save" tar, plain or compressed with gzip or zstd, and pins them:
// nothing collects them. It returns their names. It ends with an error before the disk has less free than it should.
func (r *Runtime) Import(ctx context.Context, from io.Reader) ([]string, error) {
	ctx = r.ns(ctx)
	tar, err := archive.Reader(from, r.spare)
	if err != nil {
		return nil, fmt.Errorf("image import: %w", err)
	}
	defer tar.Close()
	list, err := r.client.Import(ctx, tar, client.WithAllPlatforms(false), client.WithImageLabels(map[string]string{labelPinned: "pinned"}),
		client.WithSkipMissing(), client.WithImageRefTranslator(func(name string) string {
			full, err := fullName(name)
			if err != nil {
				return ""
			}
			return full
		}))
	if errors.Is(err, images.ErrEmptyWalk) {
		return nil, fmt.Errorf("image import: the archive holds nothing for this machine (%s); save the image for it, as in \"docker save --platform\"", r.platform())
	}
	if err != nil {
		return nil, fmt.Errorf("image import: %w", err)
	}
	var names []string
	for _, i := range list {
		img := client.NewImage(r.client, i)
		if err := img.Unpack(ctx, r.snapshotter); err != nil {
			return names, fmt.Errorf("image import: %s: %w", i.Name, err)
		}
		names = append(names, i.Name)
	}
	if len(names) == 0 {
		return nil, errors.New("image import: the archive names no image; save it with a name, as in \"docker save NAME:TAG\"")
	}
	return names, nil
}

// spare returns why the disk of the images has no room for more, or nil.
func (r *Runtime) spare() error { return r.cfg.Disk.Spare(r.imageDir) }

// StoredImage is one image on the node.
type StoredImage struct {
	Name, Digest string
	Size         int64 // bytes in the content store
	Pinned       bool
	CreatedAt    time.Time
}

// List returns the images on the node, sorted by name.
func (r *Runtime) List(ctx context.Context) ([]StoredImage, error) {
	ctx = r.ns(ctx)
	list, err := r.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	out := make([]StoredImage, 0, len(list))
	for _, img := range list {
		size, err := img.Size(ctx)
		if err != nil {
			size = 0 // not complete
		}
		out = append(out, StoredImage{Name: img.Name(), Digest: img.Target().Digest.String(), Size: size,
			Pinned: img.Labels()[labelPinned] == "pinned", CreatedAt: img.Metadata().CreatedAt})
	}
	slices.SortFunc(out, func(a, b StoredImage) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
