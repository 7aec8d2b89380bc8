package batch

import (
	"context"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	jobutil "k8s.io/kubernetes/pkg/api/job"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/kubernetes/pkg/apis/batch/validation"
	api "k8s.io/kubernetes/pkg/apis/core"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/podtemplate"
	"petrel.dev/petrel/internal/kube"
)

func jobKind() *resource.Kind {
	k := resource.Declare(batchv1.SchemeGroupVersion.WithKind("Job"), "jobs", "job")
	k.Categories = []string{"all"}
	k.OrphanDependents = true
	k.OrphanWarning = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"
	path := field.NewPath("spec")
	k.Rules = resource.Strategy[batch.Job]{
		PrepareCreate: func(j *batch.Job) {
			if manual := j.Spec.ManualSelector; manual == nil || !*manual {
				selectOwnPods(j)
			}
			j.Status = batch.JobStatus{}
			j.Generation = 1
			podutil.DropDisabledTemplateFields(&j.Spec.Template, nil)
		},
		PrepareUpdate: func(j, old *batch.Job) {
			j.Status = *old.Status.DeepCopy()
			podutil.DropDisabledTemplateFields(&j.Spec.Template, &old.Spec.Template)
			resource.CountChange(&j.ObjectMeta, &old.ObjectMeta, j.Spec, old.Spec)
		},
		ValidateCreate: func(j *batch.Job) field.ErrorList { return validation.ValidateJob(j, jobOptions(j, nil)) },
		ValidateUpdate: func(j, old *batch.Job) field.ErrorList {
			opts := jobOptions(j, old)
			return append(validation.ValidateJob(j, opts), validation.ValidateJobUpdate(j, old, opts)...)
		},
		WarnCreate: func(ctx context.Context, j *batch.Job) []string {
			return append(podtemplate.NameWarnings(j.Name), jobutil.WarningsForJobSpec(ctx, path, &j.Spec, nil)...)
		},
		WarnUpdate: func(ctx context.Context, j, old *batch.Job) []string {
			if j.Generation == old.Generation {
				return nil
			}
			return jobutil.WarningsForJobSpec(ctx, path, &j.Spec, &old.Spec)
		},
	}.Rules()
	k.Subresources["status"] = resource.Strategy[batch.Job]{
		PrepareUpdate: func(j, old *batch.Job) { j.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: func(j, old *batch.Job) field.ErrorList {
			return validation.ValidateJobUpdateStatus(j, old, statusOptions(j, old))
		},
	}.Status(k)
	k.SelectFields(func(obj kube.Object, s fields.Set) {
		s["status.successful"] = strconv.Itoa(int(obj.(*batchv1.Job).Status.Succeeded))
	}, "status.successful")
	return k
}

// selectOwnPods gives the pods of a job labels that no other job has, and selects by its UID. Labels that the user set stay:
// validation refuses those that contradict.
func selectOwnPods(j *batch.Job) {
	setDefault(&j.Spec.Template.Labels, batch.LegacyJobNameLabel, j.Name)
	setDefault(&j.Spec.Template.Labels, batch.JobNameLabel, j.Name)
	setDefault(&j.Spec.Template.Labels, batch.LegacyControllerUidLabel, string(j.UID))
	setDefault(&j.Spec.Template.Labels, batch.ControllerUidLabel, string(j.UID))
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	setDefault(&j.Spec.Selector.MatchLabels, batch.ControllerUidLabel, string(j.UID))
}

func setDefault(labels *map[string]string, key, value string) {
	if *labels == nil {
		*labels = map[string]string{}
	}
	if _, ok := (*labels)[key]; !ok {
		(*labels)[key] = value
	}
}

// jobOptions decides what may change in a job; old is nil for a creation.
func jobOptions(j, old *batch.Job) validation.JobValidationOptions {
	var before *api.PodTemplateSpec
	if old != nil {
		before = &old.Spec.Template
	}
	opts := validation.JobValidationOptions{
		PodValidationOptions:  podutil.GetValidationOptionsFromPodTemplate(&j.Spec.Template, before),
		RequirePrefixedLabels: true,
	}
	if old == nil {
		return opts
	}
	if metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector) { // what was accepted once may stay
		opts.AllowInvalidLabelValueInSelector = true
	}
	// While it is suspended and runs no pod, a queueing controller may say where its pods run and what they get.
	suspended := old.Spec.Suspend != nil && *old.Spec.Suspend
	stopped := old.Status.StartTime == nil || validation.IsConditionTrue(old.Status.Conditions, batch.JobSuspended)
	idle := suspended && stopped && old.Status.Active == 0
	opts.AllowMutablePodResources, opts.AllowMutableSchedulingDirectives = idle, idle
	_, name := old.Spec.Template.Labels[batch.JobNameLabel]
	_, uid := old.Spec.Template.Labels[batch.ControllerUidLabel]
	opts.RequirePrefixedLabels = name && uid
	return opts
}
