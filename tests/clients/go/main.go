// Uses the clients that oapi-codegen made of both documents:
// main SHOP_URL ADMIN_URL ADMIN_TOKEN.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"clients/admin"
	"clients/shop"
)

var ctx = context.Background()

func main() {
	log.SetFlags(log.Lshortfile)
	useShop(os.Args[1])
	useAdmin(os.Args[2], os.Args[3])
}

// check ends the program unless what was done was done.
func check(done bool, what ...any) {
	if !done {
		log.Output(2, "not as expected: ")
		log.Fatalln(what...)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func showing(token string) func(context.Context, *http.Request) error {
	return func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
}

func useShop(url string) {
	anybody := must(shop.NewClientWithResponses(url))
	logIn := func(name, password string) *shop.LoginResponse {
		return must(anybody.LoginWithResponse(ctx, shop.AuthRequest{Username: name, Password: password}))
	}
	client := func(name string) *shop.ClientWithResponses {
		token := logIn(name, "a secret").JSON200.Token
		return must(shop.NewClientWithResponses(url, shop.WithRequestEditorFn(showing(token))))
	}
	alice, bob := client("go-alice"), client("go-bob")
	wrong := logIn("go-alice", "another secret")
	check(wrong.JSON401 != nil && wrong.JSON401.Code == "wrong_password", wrong.Status())

	merch := must(anybody.ListMerchWithResponse(ctx))
	check(len(merch.JSON200.Items) == 10, merch.Status())

	key := "one cup"
	for range 2 {
		bought := must(alice.BuyWithResponse(ctx, "cup", &shop.BuyParams{IdempotencyKey: &key}))
		check(bought.StatusCode() == 200, bought.Status())
	}
	refused := must(alice.BuyWithResponse(ctx, "unicorn", nil))
	check(refused.JSON400 != nil && refused.JSON400.Code == "unknown_item", refused.Status())

	send := func(from *shop.ClientWithResponses, to string, amount int64) *shop.SendCoinResponse {
		body := shop.SendCoinRequest{ToUser: to, Amount: amount}
		return must(from.SendCoinWithResponse(ctx, nil, body))
	}
	poor := send(alice, "go-bob", 5000)
	check(poor.JSON400 != nil && poor.JSON400.Code == "insufficient_coins", poor.Status())
	check(send(alice, "go-bob", 30).StatusCode() == 200)
	check(send(bob, "go-alice", 10).StatusCode() == 200)

	info := must(alice.GetInfoWithResponse(ctx)).JSON200
	check(info.Coins == 1000-20-30+10 && info.Inventory[0].Quantity == 1, info)

	var kinds []any
	limit := int32(3)
	params := shop.GetHistoryParams{Limit: &limit}
	for {
		page := must(alice.GetHistoryWithResponse(ctx, &params)).JSON200
		for _, movement := range page.Movements {
			kinds = append(kinds, must(movement.ValueByDiscriminator()))
		}
		if params.Cursor = page.NextCursor; params.Cursor == nil {
			break
		}
	}
	check(len(kinds) == 4, kinds)
	check(kinds[0].(shop.ReceivedEntry).FromUser == "go-bob", kinds)
	check(kinds[1].(shop.SentEntry).Amount == 30, kinds)
	check(kinds[2].(shop.PurchaseEntry).Item == "cup", kinds)
	check(kinds[3].(shop.GrantEntry).Amount == 1000, kinds)

	summary := must(alice.GetHistorySummaryWithResponse(ctx)).JSON200
	check(summary.Sent[0].Amount == 30 && summary.Received[0].Transfers == 1, summary)
	nobody := must(anybody.GetInfoWithResponse(ctx))
	check(nobody.JSON401 != nil, nobody.Status())
}

func useAdmin(url, token string) {
	operator := must(admin.NewClientWithResponses(url, admin.WithRequestEditorFn(showing(token))))

	added := must(operator.AddBackendWithResponse(ctx, admin.NewBackend{Url: "http://127.0.0.1:19"}))
	check(added.JSON201 != nil, added.Status())
	name := added.JSON201.Backends[0].Name
	again := must(operator.AddBackendWithResponse(ctx, admin.NewBackend{Url: "http://127.0.0.1:19"}))
	check(again.JSON409 != nil && again.JSON409.Code == "backend_exists", again.Status())
	listed := must(operator.ListBackendsWithResponse(ctx))
	check(len(listed.JSON200.Backends) == 2, listed.Status())
	removed := must(operator.RemoveBackendWithResponse(ctx, nil, admin.BackendBody{Backend: name}))
	check(removed.StatusCode() == 204, removed.Status())

	client := "198.51.100.2"
	body := admin.LimitBody{ClientId: &client, Capacity: 5, RatePerSec: 1}
	created := must(operator.CreateLimitWithResponse(ctx, nil, body))
	check(created.StatusCode() == 201, created.Status())
	limit := must(operator.GetLimitWithResponse(ctx, &admin.GetLimitParams{ClientId: &client}))
	check(limit.JSON200 != nil && limit.JSON200.Capacity == 5, limit.Status())
	deleted := must(operator.DeleteLimitWithResponse(ctx, &admin.DeleteLimitParams{ClientId: &client}))
	check(deleted.StatusCode() == 204, deleted.Status())
	missing := must(operator.GetLimitWithResponse(ctx, &admin.GetLimitParams{ClientId: &client}))
	check(missing.JSON404 != nil, missing.Status())
}
