// A sign-up by gRPC. Make otpmail/v1 of protos/, and run it:
//
//	go mod init otpmail
//	protoc -I ../../protos --go_out=. --go_opt=module=otpmail --go-grpc_out=. --go-grpc_opt=module=otpmail \
//		otpmail/v1/mail.proto otpmail/v1/otp.proto
//	go mod tidy && go run .
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	otpmail "otpmail/v1"
)

func main() {
	// By TLS: grpc.WithTransportCredentials in place of grpc.WithInsecure, which every version of grpc-go has.
	connection, err := grpc.Dial(env("OTPMAIL_SERVER", "localhost:40700"), grpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if token := os.Getenv("OTPMAIL_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	if err := signUp(ctx, otpmail.NewOtpServiceClient(connection), "ada@example.org"); err != nil {
		log.Fatal(err)
	}
}

func signUp(ctx context.Context, codes otpmail.OtpServiceClient, email string) error {
	session := newID() // of this sign-up alone: a stranger with the same address has another code
	sent, err := codes.SendCode(ctx, &otpmail.SendCodeRequest{
		Email:     email,
		Purpose:   "sign-up",
		Session:   session,
		RequestId: newID(), // so that a repeated call sends no second mail
	})
	if err != nil {
		return err
	}
	fmt.Println(sent.Mail.State)
	code, err := codeFrom(email)
	if err != nil {
		return err
	}
	for _, typed := range []string{"000000", code} {
		checked, err := codes.ValidateCode(ctx, &otpmail.ValidateCodeRequest{
			Email:       email,
			Code:        typed,
			Purpose:     "sign-up",
			ChallengeId: sent.ChallengeId,
			Session:     session,
		})
		if err != nil {
			return err
		}
		fmt.Println(checked.Result)
	}
	_, err = codes.SendCode(ctx, &otpmail.SendCodeRequest{Email: "no address"})
	fmt.Printf("%v: %s\n", status.Code(err), status.Convert(err).Message())
	return nil
}

// codeFrom reads the code from the inbox of `otpmail dev`. In production the person does that.
func codeFrom(email string) (string, error) {
	answer, err := http.Get(env("OTPMAIL_HTTP", "http://localhost:40701") + "/inbox/" + email + "/code?wait=5")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", errors.New(answer.Status)
	}
	var found struct{ Code string }
	err = json.NewDecoder(answer.Body).Decode(&found)
	return found.Code, err
}

func newID() string {
	octets := make([]byte, 16)
	if _, err := rand.Read(octets); err != nil {
		panic(err)
	}
	return hex.EncodeToString(octets)
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
