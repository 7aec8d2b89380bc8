// Package suite is Kubernetes' end-to-end test suite, cut to the packages that hold conformance tests, with limits that fit
// a measure which is taken every day: a test that waits for something absent ends soon. The tests themselves are upstream's,
// from its Go module.
package suite

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	conformancetestdata "k8s.io/kubernetes/test/conformance/testdata"
	"k8s.io/kubernetes/test/e2e"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	e2etestingmanifests "k8s.io/kubernetes/test/e2e/testing-manifests"
	testfixtures "k8s.io/kubernetes/test/fixtures"

	_ "k8s.io/kubernetes/test/e2e/feature"

	_ "k8s.io/kubernetes/test/e2e/apimachinery"
	_ "k8s.io/kubernetes/test/e2e/apps"
	_ "k8s.io/kubernetes/test/e2e/architecture"
	_ "k8s.io/kubernetes/test/e2e/auth"
	_ "k8s.io/kubernetes/test/e2e/common"
	_ "k8s.io/kubernetes/test/e2e/dra"
	_ "k8s.io/kubernetes/test/e2e/instrumentation"
	_ "k8s.io/kubernetes/test/e2e/kubectl"
	_ "k8s.io/kubernetes/test/e2e/network"
	_ "k8s.io/kubernetes/test/e2e/node"
	_ "k8s.io/kubernetes/test/e2e/scheduling"
	_ "k8s.io/kubernetes/test/e2e/storage"

	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/framework/metrics/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
	_ "k8s.io/kubernetes/test/utils/format"
)

var (
	specLimit = flag.Duration("spec-limit", 7*time.Minute, "how long one test may take; some of upstream's watch for five minutes that nothing happens")
	podLimit  = flag.Duration("pod-limit", time.Minute, "how long to wait for a pod to start or to go")
)

func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	testfiles.AddFileSource(e2etestingmanifests.GetE2ETestingManifestsFS())
	testfiles.AddFileSource(testfixtures.GetTestFixturesFS())
	testfiles.AddFileSource(conformancetestdata.GetConformanceTestdataFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	shorten()
	os.Exit(m.Run())
}

func TestE2E(t *testing.T) { e2e.RunE2ETests(t) }

// shorten bounds each test and each wait for a pod. Upstream's limits (5 to 30 minutes) are meant for clouds that make
// machines; here a wait that long only says that something is absent.
func shorten() {
	gomega.SetDefaultEventuallyTimeout(*podLimit)
	framework.NewFrameworkExtensions = append(framework.NewFrameworkExtensions, func(f *framework.Framework) {
		t := f.Timeouts
		for _, d := range []*time.Duration{
			&t.PodStart, &t.PodStartShort, &t.PodStartSlow, &t.PodDelete, &t.ClaimProvision, &t.ClaimProvisionShort,
			&t.DataSourceProvision, &t.ClaimBound, &t.PVReclaim, &t.PVBound, &t.PVCreate, &t.PVDelete, &t.PVDeleteSlow,
		} {
			*d = min(*d, *podLimit)
		}
	})
	ginkgo.AddTreeConstructionNodeArgsTransformer(func(kind types.NodeType, _ ginkgo.Offset, text string, args []any) (string, []any, []error) {
		if kind == types.NodeTypeIt && takesContext(args) {
			args = append(args, ginkgo.SpecTimeout(*specLimit))
		}
		return text, args, nil
	})
}

// takesContext reports whether a test can be interrupted: a time limit needs a context to end it with.
func takesContext(args []any) bool {
	for _, a := range args {
		switch a := a.(type) {
		case []any:
			if takesContext(a) {
				return true
			}
		case func(context.Context), func(ginkgo.SpecContext):
			return true
		}
	}
	return false
}
