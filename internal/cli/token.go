package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"

	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/nodename"
)

var (
	secretResource    = corev1.SchemeGroupVersion.WithResource("secrets")
	configMapResource = corev1.SchemeGroupVersion.WithResource("configmaps")
)

// TokenCreate makes a join token. Join tokens are Secrets of the cluster, so this works from wherever kubectl does.
type TokenCreate struct {
	Cluster
	TTL         time.Duration `name:"ttl" default:"24h" help:"How long the token can be used; 0 means without limit." placeholder:"DURATION"`
	Uses        tokenUses     `default:"1" help:"How many devices may join with it, or unlimited." placeholder:"N"`
	NamePattern string        `help:"How devices that join with it name themselves, and the form that their names must have: with {serial}, {mac}, {machine-id}, {hostname} or {model} in it, as in pi-{serial}." placeholder:"PATTERN"`
	Description string        `help:"What it is for." placeholder:"TEXT"`
	Replace     string        `help:"Have the device that joins take the place of this node: a new card or board under the old name. No other token can replace a node." placeholder:"NODE"`
}

// tokenUses is a number of uses, of which 0 is unlimited.
type tokenUses int

// UnmarshalText reads a number, or the word unlimited.
func (u *tokenUses) UnmarshalText(text []byte) error {
	if string(text) == "unlimited" {
		*u = 0
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		return fmt.Errorf("%q is neither a number nor unlimited", text)
	}
	*u = tokenUses(n)
	return nil
}

// Run prints the token alone, fit for a variable.
func (t *TokenCreate) Run(ctx context.Context, s *Streams) error {
	c, err := t.connect(ctx, s)
	if err != nil {
		return err
	}
	cluster, err := c.clusterInfo(ctx)
	if err != nil {
		return err
	}
	token, secret, err := jointoken.Mint(cluster, jointoken.Options{TTL: t.TTL, Uses: int(t.Uses), Description: t.Description, Names: nodename.Pattern(t.NamePattern), Replace: t.Replace}, time.Now(), nil)
	if err != nil {
		return err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(secret)
	if err != nil {
		return err
	}
	_, err = c.dynamic.Resource(secretResource).Namespace(jointoken.SecretNamespace).Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{FieldManager: manager})
	if err != nil {
		return fmt.Errorf("token create: %w", err)
	}
	fmt.Fprintln(s.Out, token)
	return nil
}

// clusterInfo reads what the hub publishes for those who join.
func (c *conn) clusterInfo(ctx context.Context) (jointoken.Cluster, error) {
	obj, err := c.dynamic.Resource(configMapResource).Namespace(jointoken.ClusterNamespace).Get(ctx, jointoken.ClusterName, metav1.GetOptions{})
	if isNotFound(err) {
		return jointoken.Cluster{}, fmt.Errorf("this cluster has no ConfigMap %s/%s, so it is no Petrel cluster or its hub has just begun to start", jointoken.ClusterNamespace, jointoken.ClusterName)
	}
	if err != nil {
		return jointoken.Cluster{}, err
	}
	var cm corev1.ConfigMap
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &cm); err != nil {
		return jointoken.Cluster{}, err
	}
	cluster, err := jointoken.FromConfigMap(&cm)
	if err != nil {
		return jointoken.Cluster{}, err
	}
	obj, err = c.dynamic.Resource(secretResource).Namespace(jointoken.SecretNamespace).Get(ctx, jointoken.BrokerSecretName, metav1.GetOptions{})
	if isNotFound(err) {
		return cluster, nil // the hub's own broker
	}
	if err != nil {
		return jointoken.Cluster{}, err
	}
	var secret corev1.Secret
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &secret); err != nil {
		return jointoken.Cluster{}, err
	}
	cluster.Broker = string(secret.Data["url"])
	return cluster, nil
}

// TokenList lists join tokens.
type TokenList struct{ Cluster }

// Run prints one line a token.
func (t *TokenList) Run(ctx context.Context, s *Streams) error {
	c, err := t.connect(ctx, s)
	if err != nil {
		return err
	}
	list, err := c.dynamic.Resource(secretResource).Namespace(jointoken.SecretNamespace).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(jointoken.SecretType)})
	if err != nil {
		return err
	}
	if len(list.Items) == 0 {
		fmt.Fprintln(s.Err, "No join tokens; make one with: petrel token create")
		return nil
	}
	out := printers.GetNewTabWriter(s.Out)
	fmt.Fprintln(out, "ID\tUSES LEFT\tEXPIRES IN\tAGE\tNAMES\tDESCRIPTION")
	now := time.Now()
	for i := range list.Items {
		var secret corev1.Secret
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &secret); err != nil {
			return err
		}
		r, err := jointoken.FromSecret(&secret)
		if err != nil {
			fmt.Fprintln(s.Err, err)
			continue
		}
		uses, expires := "unlimited", "never"
		if r.Uses >= 0 {
			uses = strconv.Itoa(r.Uses)
		}
		if !r.Expires.IsZero() {
			expires = "expired"
			if left := r.Expires.Sub(now); left > 0 {
				expires = duration.HumanDuration(left)
			}
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", r.TokenID, uses, expires, duration.HumanDuration(now.Sub(secret.CreationTimestamp.Time)), cmp.Or(r.Replace, string(r.Names), "-"), r.Description)
	}
	return out.Flush()
}

// TokenDelete deletes join tokens.
type TokenDelete struct {
	Cluster
	IDs []string `arg:"" name:"id" help:"Ids as petrel token list shows them."`
}

// Run deletes each.
func (t *TokenDelete) Run(ctx context.Context, s *Streams) error {
	c, err := t.connect(ctx, s)
	if err != nil {
		return err
	}
	for _, id := range t.IDs {
		err := c.dynamic.Resource(secretResource).Namespace(jointoken.SecretNamespace).Delete(ctx, jointoken.SecretName(id), metav1.DeleteOptions{})
		if isNotFound(err) {
			return fmt.Errorf("there is no join token %q; petrel token list shows those there are", id)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "join token %s deleted\n", id)
	}
	return nil
}
