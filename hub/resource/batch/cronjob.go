package batch

import (
	"context"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	jobutil "k8s.io/kubernetes/pkg/api/job"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/kubernetes/pkg/apis/batch/validation"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/podtemplate"
)

func cronJobKind() *resource.Kind {
	k := resource.Declare(batchv1.SchemeGroupVersion.WithKind("CronJob"), "cronjobs", "cronjob")
	k.ShortNames, k.Categories = []string{"cj"}, []string{"all"}
	path := field.NewPath("spec", "jobTemplate", "spec")
	k.Rules = resource.Strategy[batch.CronJob]{
		PrepareCreate: func(c *batch.CronJob) {
			c.Status = batch.CronJobStatus{}
			c.Generation = 1
			podutil.DropDisabledTemplateFields(&c.Spec.JobTemplate.Spec.Template, nil)
		},
		PrepareUpdate: func(c, old *batch.CronJob) {
			c.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(&c.Spec.JobTemplate.Spec.Template, &old.Spec.JobTemplate.Spec.Template)
			resource.CountChange(&c.ObjectMeta, &old.ObjectMeta, c.Spec, old.Spec)
		},
		ValidateCreate: func(c *batch.CronJob) field.ErrorList {
			return validation.ValidateCronJobCreate(c, podutil.GetValidationOptionsFromPodTemplate(&c.Spec.JobTemplate.Spec.Template, nil))
		},
		ValidateUpdate: func(c, old *batch.CronJob) field.ErrorList {
			opts := podutil.GetValidationOptionsFromPodTemplate(&c.Spec.JobTemplate.Spec.Template, &old.Spec.JobTemplate.Spec.Template)
			return validation.ValidateCronJobUpdate(c, old, opts)
		},
		WarnCreate: func(ctx context.Context, c *batch.CronJob) []string {
			return append(podtemplate.NameWarnings(c.Name), jobutil.WarningsForJobSpec(ctx, path, &c.Spec.JobTemplate.Spec, nil)...)
		},
		WarnUpdate: func(ctx context.Context, c, old *batch.CronJob) []string {
			var out []string
			if c.Generation != old.Generation {
				out = jobutil.WarningsForJobSpec(ctx, path, &c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec)
			}
			if strings.Contains(c.Spec.Schedule, "TZ") {
				out = append(out, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, "+
					"see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
			}
			return out
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[batch.CronJob]{
		PrepareUpdate:  func(c, old *batch.CronJob) { c.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: func(_, _ *batch.CronJob) field.ErrorList { return nil }, // upstream checks nothing
	}.Status(k)
	return k
}
