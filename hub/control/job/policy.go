package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict is what a Job's pod failure policy says about a failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // of the first rule that applies; Count when none does
	message string                         // why the Job fails, for FailJob
}

// judge returns the verdict of the first rule that applies to a failed pod. A nil policy counts every failure.
func judge(policy *batchv1.PodFailurePolicy, p *corev1.Pod) verdict {
	if policy == nil {
		return verdict{action: batchv1.PodFailurePolicyActionCount}
	}
	for i, rule := range policy.Rules {
		var why string
		switch {
		case rule.OnExitCodes != nil:
			c := exitedBy(&p.Status, rule.OnExitCodes)
			if c == nil {
				continue
			}
			why = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d", c.Name, p.Namespace, p.Name, c.State.Terminated.ExitCode)
		case rule.OnPodConditions != nil:
			c := conditionBy(&p.Status, rule.OnPodConditions)
			if c == nil {
				continue
			}
			why = fmt.Sprintf("Pod %s/%s has condition %s", p.Namespace, p.Name, c.Type)
		default:
			continue
		}
		v := verdict{action: rule.Action}
		if rule.Action == batchv1.PodFailurePolicyActionFailJob {
			v.message = fmt.Sprintf("%s matching %s rule at index %d", why, rule.Action, i)
		}
		return v
	}
	return verdict{action: batchv1.PodFailurePolicyActionCount}
}

// exitedBy returns the first container with an exit code that the requirement is about. Exit code 0 is no failure, whatever the rule
// lists.
func exitedBy(s *corev1.PodStatus, want *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses} {
		for i := range list {
			end := list[i].State.Terminated
			if end == nil || end.ExitCode == 0 || want.ContainerName != nil && *want.ContainerName != list[i].Name {
				continue
			}
			listed := slices.Contains(want.Values, end.ExitCode)
			if listed && want.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn || !listed && want.Operator == batchv1.PodFailurePolicyOnExitCodesOpNotIn {
				return &list[i]
			}
		}
	}
	return nil
}

func conditionBy(s *corev1.PodStatus, want []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range s.Conditions {
		for _, w := range want {
			if s.Conditions[i].Type == w.Type && s.Conditions[i].Status == w.Status {
				return &s.Conditions[i]
			}
		}
	}
	return nil
}

// succeedsBy returns why the indexes that succeeded are enough by a success policy, which may be nil; "" when they are not.
func succeedsBy(policy *batchv1.SuccessPolicy, succeeded indexSet, completions int) string {
	if policy == nil || len(succeeded) == 0 {
		return ""
	}
	for i, rule := range policy.Rules {
		done, enough := succeeded.size(), false
		if rule.SucceededIndexes != nil {
			wanted := parseIndexes(*rule.SucceededIndexes, completions)
			if len(wanted) == 0 {
				continue
			}
			done = succeeded.common(wanted)
			enough = done == wanted.size()
		}
		if enough || rule.SucceededCount != nil && done >= int(*rule.SucceededCount) {
			return fmt.Sprintf("Matched rules at index %d", i)
		}
	}
	return ""
}
