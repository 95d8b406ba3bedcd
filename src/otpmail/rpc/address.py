"""otpmail.v1.AddressService: decodes requests, and encodes what `otp.addresses` answers."""

from otpmail.otp.addresses import AddressService
from otpmail.rpc import encode
from otpmail.rpc.calls import Context, call_from
from otpmail.v1 import address_pb2, address_pb2_grpc


class AddressServicer(address_pb2_grpc.AddressServiceServicer):
    """Serves `otp.addresses.AddressService`."""

    def __init__(self, addresses: AddressService) -> None:
        self._addresses = addresses

    async def GetAddress(
        self, request: address_pb2.GetAddressRequest, context: Context
    ) -> address_pb2.GetAddressResponse:
        """Return what is known of an address."""
        response = address_pb2.GetAddressResponse()
        for budget in await self._addresses.budgets(call_from(context), request.email):
            message = response.budgets.add(name=budget.setting, spent=budget.spent, limit=budget.limit)
            encode.fill_timestamp(message.reset_time, budget.reset_time)
        return response

    async def ReleaseAddress(
        self, request: address_pb2.ReleaseAddressRequest, context: Context
    ) -> address_pb2.ReleaseAddressResponse:
        """Lift the budgets of an address."""
        await self._addresses.release(call_from(context), request.email, budgets=request.budgets)
        return address_pb2.ReleaseAddressResponse()

    async def ForgetAddress(
        self, request: address_pb2.ForgetAddressRequest, context: Context
    ) -> address_pb2.ForgetAddressResponse:
        """Erase what is kept of an address."""
        await self._addresses.forget(call_from(context), request.email)
        return address_pb2.ForgetAddressResponse()
